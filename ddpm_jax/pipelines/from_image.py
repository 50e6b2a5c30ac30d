"""Image to image and inpainting with a network in pixel space."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ddpm_jax._typing import is_whole
from ddpm_jax.guidance.known import put_back
from ddpm_jax.images import PixelRange
from ddpm_jax.models import UNet2DModel
from ddpm_jax.pipelines.beginning import (
    Beginning,
    Keys,
    Samples,
    begin_inpainting,
    first_step,
    rows_of,
)
from ddpm_jax.pipelines.generate import DECODERS, Decode
from ddpm_jax.pipelines.inputs import Inputs
from ddpm_jax.pipelines.pictures import Pictures, masks, pictures
from ddpm_jax.sampling.keys import noised
from ddpm_jax.tables.table import Table

STRENGTH = 0.8
"""Of image to image; inpainting begins with noise alone."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FromImage:
    """Given images, and how a run begins with them.

    Attributes:
        found: the images, in [0, 1].
        mask: (K, H, W, 1), 1 where they are made anew; None: image to image.
        start: number of steps that are left out.
        whole: begin with noise alone.
        pixels: of the network.
    """

    found: Pictures
    mask: Float[np.ndarray, "k h w 1"] | None
    start: int
    whole: bool
    pixels: PixelRange

    def __len__(self) -> int:
        """The number of images."""
        return len(self.found.values)

    def begin(self, table: Table, keys: Keys, x_T: Samples | None) -> Beginning:
        """The start of the loop.

        Raises:
            ValueError: there are several images, but not one for each key; or x_T has another size.
        """
        if len(self) not in (1, len(keys)):
            raise ValueError(
                f"image must be one, or {len(keys)} as the images that are made; got {len(self)}"
            )
        if x_T is not None and x_T.shape[1:3] != self.found.size:
            raise ValueError(f"x_T must have the size of image, {self.found.size}; got {x_T.shape}")
        rows = rows_of(self.found, len(keys))
        x0 = jnp.asarray(self.pixels.from_unit(self.found.values))[rows]
        if self.mask is None:
            return Beginning(x_T=noised(table, x0, keys) if x_T is None else x_T)
        mask = jnp.asarray(np.broadcast_to(self.mask, (len(self), *self.found.size, 1)))[rows]
        one_draw = table.noise_scale is None  # the path of one noise
        return begin_inpainting(table, keys, x0, mask, x_T, whole=self.whole, one_draw=one_draw)

    def decode(self, inputs: Inputs) -> Decode:
        """Samples to images in [0, 1], with the known part of inpainted ones."""
        if self.mask is None:
            return DECODERS[self.pixels]
        return partial(_decoded, self.pixels, inputs.conditions["mask"], inputs.conditions["known"])


@partial(jax.jit, static_argnums=0)
def _decoded(
    pixels: PixelRange, mask: Float[Array, "n h w 1"], known: Float[Array, "n h w c"], x: Any
) -> Any:
    return pixels.to_unit(put_back(x, mask[: len(x)], known[: len(x)]))


def given_pictures(model: UNet2DModel, image: Any) -> Pictures:
    """The images of a call, at the network's own size or that of arrays; raises as `pictures`."""
    config = model.config
    own = config.sample_size
    size = None if own is None or hasattr(image, "shape") else (own, own) if is_whole(own) else own
    factor = 2 ** (len(config.block_out_channels) - 1)
    return pictures(
        image, channels=config.in_channels, latent_channels=None, factor=factor, size=size
    )


def from_image(
    model: UNet2DModel,
    image: Any,
    mask_image: Any,
    strength: float | None,
    *,
    steps: int,
    table: Table | None,
    pixels: PixelRange,
) -> FromImage | None:
    """The images of a call; None if there are none.

    Raises:
        ValueError: images and masks have wrong sizes or ranges; mask or strength without an image;
            or as `first_step`.
    """
    if image is None:
        given = {"mask_image": mask_image, "strength": strength}
        if lonely := [name for name, value in given.items() if value is not None]:
            raise ValueError(f"{' and '.join(lonely)} needs image")
        return None
    found = given_pictures(model, image)
    mask = None if mask_image is None else masks(mask_image, like=image, size=found.size)
    if mask is not None and len(mask) not in (1, len(found.values)):
        raise ValueError(f"got {len(mask)} masks for {len(found.values)} images")
    start, whole = first_step(
        steps,
        strength,
        default=STRENGTH if mask is None else 1.0,
        table=table,
        inpainting=mask is not None,
    )
    return FromImage(found=found, mask=mask, start=start, whole=whole, pixels=pixels)
