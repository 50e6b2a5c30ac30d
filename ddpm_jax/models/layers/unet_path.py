"""The way through a UNet's blocks.

    skips = h, then those of every down block
    y     = up_blocks(mid_block(down_blocks(h)), skips)

An up block ends at the size of the next skip, which for an odd size is not twice its own. The
blocks of NCSN++ (`ddpm_jax.models.layers.skip_blocks`) also pass an image along, beside h.
"""

from collections.abc import Iterable

from jaxtyping import Array, Float

from ddpm_jax.models.layers.attention import Context
from ddpm_jax.models.layers.plain import Image
from ddpm_jax.models.layers.skip_blocks import SkipDownBlock, SkipUpBlock
from ddpm_jax.models.layers.unet_blocks import DownBlock, Embedding, MidBlock, UpBlock

Down = DownBlock | SkipDownBlock
Up = UpBlock | SkipUpBlock


def through(
    h: Image,
    image: Float[Array, "b h w _"],
    emb: Embedding,
    context: Context | None,
    *,
    down: Iterable[Down],
    mid: MidBlock | None,
    up: Iterable[Up],
) -> tuple[Image, Float[Array, "b h w 3"] | None]:
    """From the first convolution's output, and the network's input, to the last norm's input, and
    what is added to the network's output.
    """
    skips = [h]
    for block in down:
        if isinstance(block, SkipDownBlock):
            h, left, image = block(h, emb, image)
        else:
            h, left = block(h, emb, context)
        skips += left
    if mid is not None:
        h = mid(h, emb, context)
    made = None
    for block in up:
        count = block.layers
        skips, used = skips[:-count], skips[-count:]
        if isinstance(block, SkipUpBlock):
            h, made = block(h, used, emb, made)
            continue
        # the last block does not resample
        size = (skips[-1].shape[1], skips[-1].shape[2]) if skips else None
        h = block(h, used, emb, context, size)
    return h, made
