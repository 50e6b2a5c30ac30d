"""The block names of a `UNet2DModel`'s config: for each the attention and the resampling."""

from dataclasses import dataclass

from ddpm_jax.models.layers.unet_blocks import Resampler


@dataclass(frozen=True)
class BlockType:
    """The meaning of a block's name."""

    attends: bool
    resampler: Resampler | None
    """None: the config chooses it."""


DOWN = {
    "DownBlock2D": BlockType(attends=False, resampler="conv"),
    "AttnDownBlock2D": BlockType(attends=True, resampler=None),
    "ResnetDownsampleBlock2D": BlockType(attends=False, resampler="resnet"),
}
UP = {
    "UpBlock2D": BlockType(attends=False, resampler="conv"),
    "AttnUpBlock2D": BlockType(attends=True, resampler=None),
    "ResnetUpsampleBlock2D": BlockType(attends=False, resampler="resnet"),
}
MID = "UNetMidBlock2D"


def plain_name(name: str) -> str:
    """The block's name without its old prefix."""
    return name.removeprefix("UNetRes")
