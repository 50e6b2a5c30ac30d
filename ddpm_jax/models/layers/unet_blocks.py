"""The blocks of a UNet; `ddpm_jax.models.layers.unet_path` is the way through them.

Each block is a sequence of residual blocks, with or without attention; each may get the embedding
of the timestep, and attentions a context. The blocks of an autoencoder have neither, and no skips.

Reference: Ho et al. 2020, appendix B, arXiv:2006.11239.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from ddpm_jax.models.layers.attention import Context, SpatialAttention
from ddpm_jax.models.layers.basic import make_conv, make_norm
from ddpm_jax.models.layers.config import Activation, LayerConfig
from ddpm_jax.models.layers.plain import Image, Output, double
from ddpm_jax.models.layers.resnet import ResnetBlock
from ddpm_jax.models.layers.transformer import SpatialTransformer

Embedding = Float[Array, "b e"]
"""Of the timestep, and the class."""
MakeAttention = Callable[[str], nn.Module]
"""From a name to a module that is called with an image and a context."""
Resampler = Literal["conv", "resnet"]


class DownBlock(nn.Module):
    """Residual blocks, then half the size."""

    config: LayerConfig
    features: int
    layers: int
    attention: MakeAttention | None
    resampler: Resampler | None
    """None: the size stays."""
    padding: int
    """Padding of a resampling convolution: 1 on all sides, or 0 for right and bottom only."""

    @nn.compact
    def __call__(
        self, x: Image, emb: Embedding | None = None, context: Context | None = None
    ) -> tuple[Output, list[Float[Array, "b _ _ _"]]]:
        """Maps images; also returns the skips, the inputs of the up path, first to last."""
        skips: list[Array] = []
        for i in range(self.layers):
            x = make_resnet(self.config, self.features, f"resnets.{i}")(x, emb)
            if self.attention is not None:
                x = self.attention(f"attentions.{i}")(x, context)
            skips.append(x)
        if self.resampler == "conv":
            x = ConvDownsample(self.config, self.padding, name="downsamplers.0")(x)
        elif self.resampler == "resnet":
            block = make_resnet(self.config, self.features, "downsamplers.0", resample="halve")
            x = block(x, emb)
        return x, skips if self.resampler is None else [*skips, x]


class MidBlock(nn.Module):
    """Residual block, attention, residual block."""

    config: LayerConfig
    attention: MakeAttention | None
    output_scale: float

    @nn.compact
    def __call__(
        self, x: Image, emb: Embedding | None = None, context: Context | None = None
    ) -> Image:
        """Maps images."""
        config, scale, features = self.config, self.output_scale, x.shape[-1]
        x = make_resnet(config, features, "resnets.0", output_scale=scale)(x, emb)
        if self.attention is not None:
            x = self.attention("attentions.0")(x, context)
        return make_resnet(config, features, "resnets.1", output_scale=scale)(x, emb)


class UpBlock(nn.Module):
    """Residual blocks, each concatenated with the last unused skip, then twice the size."""

    config: LayerConfig
    features: int
    layers: int
    attention: MakeAttention | None
    resampler: Resampler | None
    """None: the size stays."""

    @nn.compact
    def __call__(
        self,
        x: Image,
        skips: Sequence[Float[Array, "b h w _"]] = (),
        emb: Embedding | None = None,
        context: Context | None = None,
        size: tuple[int, int] | None = None,
    ) -> Output:
        """Maps images; the last of `skips` is used first. Without skips none is concatenated.

        The output has `size`, as far as it is resampled; None: twice that of x.
        """
        for i in range(self.layers):
            if skips:
                x = jnp.concatenate([x, skips[-1 - i]], axis=-1)
            x = make_resnet(self.config, self.features, f"resnets.{i}")(x, emb)
            if self.attention is not None:
                x = self.attention(f"attentions.{i}")(x, context)
        if self.resampler == "conv":
            x = ConvUpsample(self.config, name="upsamplers.0")(x, size)
        elif self.resampler == "resnet":
            block = make_resnet(self.config, self.features, "upsamplers.0", resample="double")
            x = block(x, emb)
        return x


class ConvDownsample(nn.Module):
    """3x3 convolution at stride 2."""

    config: LayerConfig
    padding: int

    @nn.compact
    def __call__(self, x: Image) -> Output:
        """Halves the size."""
        edge = (self.padding, 1)  # before, after
        return make_conv(self.config, x.shape[-1], "conv", stride=2, padding=(edge, edge))(x)


class ConvUpsample(nn.Module):
    """Nearest-neighbor upsampling to twice the size, then a 3x3 convolution."""

    config: LayerConfig

    @nn.compact
    def __call__(self, x: Image, size: tuple[int, int] | None = None) -> Output:
        """Doubles the size; with another one the last row or column is cut before the
        convolution.
        """
        _, h, w, c = x.shape
        if size in (None, (2 * h, 2 * w)):
            return make_conv(self.config, c, "conv", doubled=True)(x)
        return make_conv(self.config, c, "conv")(double(x)[:, : size[0], : size[1]])


def make_resnet(config: LayerConfig, features: int, name: str, **options: Any) -> ResnetBlock:
    """A residual block with the choices of the model; options are those of `ResnetBlock`."""
    block = nn.remat(ResnetBlock) if config.remat else ResnetBlock
    return block(config, features, name=name, **options)


def make_attention(
    config: LayerConfig, groups: int | None = None, output_scale: float = 1.0
) -> MakeAttention:
    """Attention of pixels to each other, with the choices of the model; `groups` as of
    `SpatialAttention`.
    """
    block = nn.remat(SpatialAttention) if config.remat else SpatialAttention
    return lambda name: block(config, groups, output_scale, name=name)


def make_transformer(config: LayerConfig, heads: int, **options: Any) -> MakeAttention:
    """Attention of pixels to each other and to a context; options are those of
    `SpatialTransformer`.
    """
    block = nn.remat(SpatialTransformer) if config.remat else SpatialTransformer
    return lambda name: block(config, heads, name=name, **options)


def begin(config: LayerConfig, x: Image, features: int) -> Output:
    """The first convolution, in float32 at least."""
    return make_conv(config.exact, features, "conv_in")(x).astype(config.dtype)


def end(config: LayerConfig, h: Image, features: int, activation: Activation) -> Output:
    """The last norm, activation and convolution, in float32 at least."""
    h = make_norm(config.exact, "conv_norm_out", activation)(h)
    return make_conv(config.exact, features, "conv_out")(h)
