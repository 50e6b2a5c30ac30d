"""The blocks of NCSN++ in a UNet's config: the faults that they can have.

A pyramid's image is halved by every Skip block of the down path but the last block, and doubled by
every one of the up path. So no other block may resample h before the image is used, or after.
"""

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

from ddpm_jax.hub.files import listed
from ddpm_jax.models.layers.basic import default_groups
from ddpm_jax.models.layers.skip_blocks import ATTENTION_GROUPS, IMAGE_CHANNELS, first_groups
from ddpm_jax.models.unet_2d.block_types import DOWN, UP, plain_name


def is_skip(name: str) -> bool:
    """Whether a block type is one of NCSN++."""
    return (DOWN | UP)[plain_name(name)].resampler == "smooth"


def faults(config: Mapping[str, Any]) -> Iterator[str]:
    """Every fault of the pyramids, and of the norms inside of Skip blocks."""
    down, up = config["down_block_types"], config["up_block_types"]
    for name, blocks, channels in (("down", down, "in_channels"), ("up", up, "out_channels")):
        # the last block of each path has no part in a pyramid
        if any(map(is_skip, blocks[:-1])) and config[channels] != IMAGE_CHANNELS:
            yield (
                f"{name}_block_types with Skip need {channels} {IMAGE_CHANNELS}, "
                f"got {config[channels]}"
            )
    if any(not is_skip(one) and is_skip(two) for one, two in pairwise(down[:-1])):
        yield f"in down_block_types a Skip block must not come after another kind, got {down}"
    if any(is_skip(one) and not is_skip(two) for one, two in pairwise(up)):
        yield f"in up_block_types another kind of block must not come after a Skip block, got {up}"
    wrong = [
        f"{channels} channels in {groups}"
        for channels, groups in dict.fromkeys(_norms(config))
        if not groups or channels % groups
    ]
    if wrong:
        yield (
            f"the norms of Skip blocks would have {listed(wrong)} groups, which do not divide "
            f"them: block_out_channels must be others, got {config['block_out_channels']}"
        )


def _norms(config: Mapping[str, Any]) -> Iterator[tuple[int, int]]:
    """Channels and groups of every norm in a Skip block; repeated layers are left out."""
    widths = config["block_out_channels"]
    befores = (widths[0], *widths[:-1])
    for name, before, own in zip(config["down_block_types"], befores, widths, strict=True):
        if is_skip(name):
            yield before, default_groups(before)
            yield from _own_norms(own, DOWN[plain_name(name)].attends)
    widths = widths[::-1]
    befores, afters = (widths[0], *widths[:-1]), (*widths[1:], widths[-1])
    blocks = zip(config["up_block_types"], befores, widths, afters, strict=True)
    for name, before, own, after in blocks:
        if is_skip(name):
            attends, more = UP[plain_name(name)].attends, config["layers_per_block"] > 1
            for h, skip in ((before, own), *(((own, own),) if more else ()), (own, after)):
                yield h + skip, first_groups(h, skip, attends)
            yield from _own_norms(own, attends)


def _own_norms(width: int, attends: bool) -> Iterator[tuple[int, int]]:
    yield width, default_groups(width)
    if attends:
        yield width, ATTENTION_GROUPS
