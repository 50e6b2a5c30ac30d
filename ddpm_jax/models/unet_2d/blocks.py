"""The blocks of a UNet: down, middle and up, runs of residual blocks with or without attention.

Block types are data: by their names in a config, `DOWN` and `UP` say whether a block attends, and
how it resamples.

Reference: Ho et al. 2020, appendix B, arXiv:2006.11239.
"""

from dataclasses import dataclass
from typing import Any, Literal

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from ddpm_jax.models.layers.attention import Attention
from ddpm_jax.models.layers.basic import make_conv
from ddpm_jax.models.layers.config import Style
from ddpm_jax.models.layers.convolve import Image, Output
from ddpm_jax.models.layers.remat import rematerialised
from ddpm_jax.models.layers.resnet import ResnetBlock

Resampler = Literal["conv", "resnet"]


@dataclass(frozen=True)
class BlockType:
    """What a block's name means; a resampler of None is the one that the config chooses."""

    attention: bool
    resampler: Resampler | None


DOWN = {
    "DownBlock2D": BlockType(attention=False, resampler="conv"),
    "AttnDownBlock2D": BlockType(attention=True, resampler=None),
    "ResnetDownsampleBlock2D": BlockType(attention=False, resampler="resnet"),
}
UP = {
    "UpBlock2D": BlockType(attention=False, resampler="conv"),
    "AttnUpBlock2D": BlockType(attention=True, resampler=None),
    "ResnetUpsampleBlock2D": BlockType(attention=False, resampler="resnet"),
}
MID = "UNetMidBlock2D"


def plain_name(name: str) -> str:
    """The block's name without its old prefix."""
    return name.removeprefix("UNetRes")


class DownBlock(nn.Module):
    """Residual blocks, then half the size."""

    style: Style
    features: int
    layers: int
    attention: bool
    resampler: Resampler | None
    """None: the size stays."""
    padding: int
    """Of a resampling convolution: 1 on all sides, or 0 for right and bottom only."""

    @nn.compact
    def __call__(
        self, x: Image, emb: Float[Array, "b e"]
    ) -> tuple[Output, list[Float[Array, "b _ _ _"]]]:
        """Maps pictures; also returns the skips, what the up path will want, first to last."""
        skips: list[Array] = []
        for i in range(self.layers):
            x = make_resnet(self.style, self.features, f"resnets.{i}")(x, emb)
            if self.attention:
                x = make_attention(self.style, self.style.groups, f"attentions.{i}")(x)
            skips.append(x)
        if self.resampler == "conv":
            x = ConvDownsample(self.style, self.padding, name="downsamplers.0")(x)
        elif self.resampler == "resnet":
            block = make_resnet(self.style, self.features, "downsamplers.0", resample="halve")
            x = block(x, emb)
        return x, skips if self.resampler is None else [*skips, x]


class MidBlock(nn.Module):
    """Residual block, attention, residual block."""

    style: Style
    attention: bool
    groups: int
    """Of the attention's norm, 0 for none."""
    output_scale: float

    @nn.compact
    def __call__(self, x: Image, emb: Float[Array, "b e"]) -> Image:
        """Maps pictures."""
        style, scale, features = self.style, self.output_scale, x.shape[-1]
        x = make_resnet(style, features, "resnets.0", output_scale=scale)(x, emb)
        if self.attention:
            x = make_attention(style, self.groups, "attentions.0", scale)(x)
        return make_resnet(style, features, "resnets.1", output_scale=scale)(x, emb)


class UpBlock(nn.Module):
    """Residual blocks, each joined with the latest skip that is left, then twice the size."""

    style: Style
    features: int
    attention: bool
    resampler: Resampler | None
    """None: the size stays."""

    @nn.compact
    def __call__(
        self,
        x: Image,
        skips: list[Float[Array, "b h w _"]],
        emb: Float[Array, "b e"],
    ) -> Output:
        """Maps pictures; the last of `skips` is used first."""
        for i, skip in enumerate(reversed(skips)):
            x = jnp.concatenate([x, skip], axis=-1)
            x = make_resnet(self.style, self.features, f"resnets.{i}")(x, emb)
            if self.attention:
                x = make_attention(self.style, self.style.groups, f"attentions.{i}")(x)
        if self.resampler == "conv":
            x = ConvUpsample(self.style, name="upsamplers.0")(x)
        elif self.resampler == "resnet":
            block = make_resnet(self.style, self.features, "upsamplers.0", resample="double")
            x = block(x, emb)
        return x


class ConvDownsample(nn.Module):
    """3x3 convolution at stride 2."""

    style: Style
    padding: int

    @nn.compact
    def __call__(self, x: Image) -> Output:
        """Halves the size."""
        edge = (self.padding, 1)  # before, after
        return make_conv(self.style, x.shape[-1], "conv", stride=2, padding=(edge, edge))(x)


class ConvUpsample(nn.Module):
    """Nearest neighbour to twice the size, then 3x3 convolution."""

    style: Style

    @nn.compact
    def __call__(self, x: Image) -> Output:
        """Doubles the size."""
        return make_conv(self.style, x.shape[-1], "conv", doubled=True)(x)


def make_resnet(style: Style, features: int, name: str, **options: Any) -> ResnetBlock:
    """A residual block in the model's style; options are those of `ResnetBlock`."""
    block = rematerialised(ResnetBlock) if style.remat else ResnetBlock
    return block(style, features, name=name, **options)


def make_attention(style: Style, groups: int, name: str, output_scale: float = 1.0) -> Attention:
    """An attention in the model's style."""
    block = rematerialised(Attention) if style.remat else Attention
    return block(style, groups, output_scale, name=name)
