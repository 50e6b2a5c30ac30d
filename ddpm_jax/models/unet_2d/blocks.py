"""The blocks of a UNet: down, middle and up. Each is a sequence of residual blocks, with or without
attention.

Block types are data: for each name in a config, `DOWN` and `UP` give the attention and the
resampling.

Reference: Ho et al. 2020, appendix B, arXiv:2006.11239.
"""

from dataclasses import dataclass
from typing import Any, Literal

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from ddpm_jax.models.layers.attention import Context, SpatialAttention
from ddpm_jax.models.layers.basic import make_conv
from ddpm_jax.models.layers.config import LayerConfig
from ddpm_jax.models.layers.plain import Image, Output
from ddpm_jax.models.layers.resnet import ResnetBlock

AttentionKind = Literal["self", "cross"]
"""Pixels attend to the pixels of their own image, or to the context that the blocks get."""
Resampler = Literal["conv", "resnet"]


@dataclass(frozen=True)
class BlockType:
    """The meaning of a block's name."""

    attention: AttentionKind | None
    resampler: Resampler | None
    """None: the config chooses it."""


DOWN = {
    "DownBlock2D": BlockType(attention=None, resampler="conv"),
    "AttnDownBlock2D": BlockType(attention="self", resampler=None),
    "ResnetDownsampleBlock2D": BlockType(attention=None, resampler="resnet"),
}
UP = {
    "UpBlock2D": BlockType(attention=None, resampler="conv"),
    "AttnUpBlock2D": BlockType(attention="self", resampler=None),
    "ResnetUpsampleBlock2D": BlockType(attention=None, resampler="resnet"),
}
MID = "UNetMidBlock2D"


def plain_name(name: str) -> str:
    """The block's name without its old prefix."""
    return name.removeprefix("UNetRes")


class DownBlock(nn.Module):
    """Residual blocks, then half the size."""

    config: LayerConfig
    features: int
    layers: int
    attention: AttentionKind | None
    resampler: Resampler | None
    """None: the size stays."""
    padding: int
    """Padding of a resampling convolution: 1 on all sides, or 0 for right and bottom only."""

    @nn.compact
    def __call__(
        self, x: Image, emb: Float[Array, "b e"], context: Context | None = None
    ) -> tuple[Output, list[Float[Array, "b _ _ _"]]]:
        """Maps images; also returns the skips, the inputs of the up path, first to last."""
        skips: list[Array] = []
        for i in range(self.layers):
            x = make_resnet(self.config, self.features, f"resnets.{i}")(x, emb)
            if self.attention:
                attention = make_attention(self.config, self.config.groups, f"attentions.{i}")
                x = attention(x, context if self.attention == "cross" else None)
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
    attention: AttentionKind | None
    groups: int
    """Groups of the attention's norm; 0: no norm."""
    output_scale: float

    @nn.compact
    def __call__(self, x: Image, emb: Float[Array, "b e"], context: Context | None = None) -> Image:
        """Maps images."""
        config, scale, features = self.config, self.output_scale, x.shape[-1]
        x = make_resnet(config, features, "resnets.0", output_scale=scale)(x, emb)
        if self.attention:
            attention = make_attention(config, self.groups, "attentions.0", scale)
            x = attention(x, context if self.attention == "cross" else None)
        return make_resnet(config, features, "resnets.1", output_scale=scale)(x, emb)


class UpBlock(nn.Module):
    """Residual blocks, each concatenated with the last unused skip, then twice the size."""

    config: LayerConfig
    features: int
    attention: AttentionKind | None
    resampler: Resampler | None
    """None: the size stays."""

    @nn.compact
    def __call__(
        self,
        x: Image,
        skips: list[Float[Array, "b h w _"]],
        emb: Float[Array, "b e"],
        context: Context | None = None,
    ) -> Output:
        """Maps images; the last of `skips` is used first."""
        for i, skip in enumerate(reversed(skips)):
            x = jnp.concatenate([x, skip], axis=-1)
            x = make_resnet(self.config, self.features, f"resnets.{i}")(x, emb)
            if self.attention:
                attention = make_attention(self.config, self.config.groups, f"attentions.{i}")
                x = attention(x, context if self.attention == "cross" else None)
        if self.resampler == "conv":
            x = ConvUpsample(self.config, name="upsamplers.0")(x)
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
    def __call__(self, x: Image) -> Output:
        """Doubles the size."""
        return make_conv(self.config, x.shape[-1], "conv", doubled=True)(x)


def make_resnet(config: LayerConfig, features: int, name: str, **options: Any) -> ResnetBlock:
    """A residual block with the choices of the model; options are those of `ResnetBlock`."""
    block = nn.remat(ResnetBlock) if config.remat else ResnetBlock
    return block(config, features, name=name, **options)


def make_attention(
    config: LayerConfig, groups: int, name: str, output_scale: float = 1.0
) -> SpatialAttention:
    """An attention over pixels, with the choices of the model."""
    block = nn.remat(SpatialAttention) if config.remat else SpatialAttention
    return block(config, groups, output_scale, name=name)
