"""Inpainting with Stable Diffusion: with a network that sees the mask, or with any network.

A network with latents, mask and masked latents as its channels was trained for it. With any other
the known part is put back before every evaluation (`ddpm_jax.guidance.known`).
"""

from typing import Any, Unpack

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ddpm_jax.pipelines.beginning import (
    Beginning,
    Keys,
    Samples,
    begin_inpainting,
    first_noise,
    first_step,
    rows_of,
)
from ddpm_jax.pipelines.call import check_options
from ddpm_jax.pipelines.pictures import Pictures, masks, pictures
from ddpm_jax.pipelines.prompts import Texts
from ddpm_jax.pipelines.stable_diffusion import (
    STEPS,
    PromptOptions,
    StableDiffusion,
    TextOutput,
)
from ddpm_jax.sampling.keys import noised
from ddpm_jax.tables.table import Table


class StableDiffusionInpaintPipeline(StableDiffusion):
    """Inpainting: a part of an image is made anew."""

    scheduler_fields = {"steps_offset": 1, "skip_prk_steps": True}  # noqa: RUF012

    @classmethod
    def channels(cls, latent: int) -> dict[int, str]:
        """Latents alone, or with a mask and the latents of the masked image."""
        return {latent: "latents", 2 * latent + 1: "latents, mask, masked latents"}

    def __call__(
        self,
        prompt: Texts | None,
        key: ArrayLike,
        *,
        image: Any,
        mask_image: Any,
        strength: float | None = None,
        num_inference_steps: int = STEPS,
        height: int | None = None,
        width: int | None = None,
        **options: Unpack[PromptOptions],
    ) -> TextOutput:
        """Generates the masked part of images.

        Outside the mask an image changes by what the autoencoder loses, and by what a network that
        sees the mask makes of it.

        Args:
            prompt: as in `StableDiffusionPipeline`.
            key: as in `StableDiffusionPipeline`.
            image: a PIL image, a list of them, or an array (H, W, 3) or (K, H, W, 3) in [0, 1]. One
                for all prompts, or one for each.
            mask_image: masks of the same size: PIL images, or arrays (H, W) or (K, H, W). From 0.5
                (128 in a PIL image) on, pixels are made anew.
            strength: above 0 and at most 1. At 1, the default, the loop begins with noise alone;
                below, as in image to image. With a `table` it must be given, and says how the table
                begins.
            num_inference_steps: steps of the scheduler.
            height: that PIL images are scaled to, and arrays must have. The default is the
                network's own size, or the arrays'.
            width: as `height`.
            **options: see `PromptOptions`.

        Returns:
            Images, as `StableDiffusionPipeline`.

        Raises:
            TypeError: as `StableDiffusionPipeline`.
            ValueError: as `StableDiffusionPipeline`; or images and masks have wrong sizes or
                ranges.
        """
        check_options(options, PromptOptions)
        own = (height, width)
        if len(shape := getattr(image, "shape", ())) in (3, 4):
            given = zip(own, shape[-3:-1], strict=True)
            own = tuple(side if asked is None else asked for asked, side in given)
        size = self.image_size(*own)
        found = pictures(
            image,
            channels=self.vae.in_channels,
            latent_channels=None,
            factor=self.vae.factor,
            size=size,
        )
        mask = masks(mask_image, like=image, size=size)
        if len(mask) not in (1, len(found.values)):
            raise ValueError(f"got {len(mask)} masks for {len(found.values)} images")
        start, whole = first_step(
            num_inference_steps,
            strength,
            default=self.default_strength,
            table=options.get("table"),
            inpainting=True,
        )

        def begin(table: Table, keys: Keys, x_T: Samples | None) -> Beginning:
            return self._begin(found, mask, table, keys, x_T, whole=whole)

        run = {"num_inference_steps": num_inference_steps, "start": start}
        factor = self.vae.factor
        shape = size[0] // factor, size[1] // factor, self.vae.latent_channels
        return self._call(prompt, key, run, begin, shape, pictures=len(found.values), **options)

    def _begin(
        self,
        found: Pictures,
        mask: np.ndarray,
        table: Table,
        keys: Keys,
        x_T: Samples | None,
        *,
        whole: bool,
    ) -> Beginning:
        """The start of the loop; `whole` begins with noise alone."""
        rows, factor = rows_of(found, len(keys)), self.vae.factor
        # Of every block of pixels the first one counts.
        small = np.broadcast_to(mask, (*found.values.shape[:3], 1))[:, ::factor, ::factor]
        marked = jnp.asarray(small, jnp.float32)[rows]
        if self.unet.in_channels == self.vae.latent_channels:
            latents = self._latents(found, rows, keys)
            return begin_inpainting(table, keys, latents, marked, x_T, whole=whole, one_draw=True)
        if x_T is not None:
            begin = x_T
        elif whole:
            begin = first_noise(table, keys, (*small.shape[1:3], self.vae.latent_channels))
        else:
            begin = noised(table, self._latents(found, rows, keys), keys)
        gray = np.where(mask < 0.5, found.values, 0.5).astype(np.float32)
        masked = self._latents(Pictures(gray, latent=False), rows, keys, draw=1)
        return Beginning(x_T=begin, channels=jnp.concatenate([marked, masked], axis=-1))
