"""The block names of a `UNet2DModel`'s config: for each the attention and the resampling."""

from dataclasses import dataclass
from typing import Literal

from ddpm_jax.models.layers.unet_blocks import Resampler


@dataclass(frozen=True)
class BlockType:
    """The meaning of a block's name."""

    attends: bool
    resampler: Resampler | Literal["smooth"] | None
    """"smooth": a block of NCSN++, of `ddpm_jax.models.layers.skip_blocks`. None: the config
    chooses it."""


DOWN = {
    "DownBlock2D": BlockType(attends=False, resampler="conv"),
    "AttnDownBlock2D": BlockType(attends=True, resampler=None),
    "ResnetDownsampleBlock2D": BlockType(attends=False, resampler="resnet"),
    "SkipDownBlock2D": BlockType(attends=False, resampler="smooth"),
    "AttnSkipDownBlock2D": BlockType(attends=True, resampler="smooth"),
}
UP = {
    "UpBlock2D": BlockType(attends=False, resampler="conv"),
    "AttnUpBlock2D": BlockType(attends=True, resampler=None),
    "ResnetUpsampleBlock2D": BlockType(attends=False, resampler="resnet"),
    "SkipUpBlock2D": BlockType(attends=False, resampler="smooth"),
    "AttnSkipUpBlock2D": BlockType(attends=True, resampler="smooth"),
}
MID = "UNetMidBlock2D"


def plain_name(name: str) -> str:
    """The block's name without its old prefix."""
    return name.removeprefix("UNetRes")
