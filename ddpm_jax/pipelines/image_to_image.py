"""Image to image with Stable Diffusion: a table that starts in the middle, from a noised image.

Reference: Meng et al. 2022 (SDEdit), arXiv:2108.01073.
"""

from typing import Any, Unpack

import jax
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from ddpm_jax.pipelines.beginning import (
    Beginning,
    Keys,
    Samples,
    first_step,
    rows_of,
    table_up,
)
from ddpm_jax.pipelines.call import check_options
from ddpm_jax.pipelines.pictures import Pictures, pictures
from ddpm_jax.pipelines.prompts import Texts
from ddpm_jax.pipelines.stable_diffusion import (
    STEPS,
    PromptOptions,
    StableDiffusion,
    TextOutput,
)
from ddpm_jax.sampling.keys import noised
from ddpm_jax.tables.table import Table


class ImageToImage(StableDiffusion):
    """Base of the pipelines that begin with a noised image."""

    default_strength = 0.8

    def _pictures(self, image: Any) -> Pictures:
        return pictures(
            image,
            channels=self.vae.in_channels,
            latent_channels=self.vae.latent_channels,
            factor=self.vae.factor,
        )

    def _start(self, steps: int, strength: float | None, options: PromptOptions) -> int:
        """How many of the first steps are left out; raises as `first_step`."""
        table = options.get("table")
        return first_step(
            steps, strength, default=self.default_strength, table=table, inpainting=False
        )[0]

    def _shape_of(self, found: Pictures) -> tuple[int, int, int]:
        """(h, w, c) of the latents of pictures."""
        unit = 1 if found.latent else self.vae.factor
        height, width = found.size
        return height // unit, width // unit, self.vae.latent_channels

    def _noised(
        self, found: Pictures, table: Table, keys: Keys, x_T: Samples | None
    ) -> Float[Array, "b h w c"]:
        """Samples at the first level of a table, or the user's own."""
        if x_T is not None:
            return x_T
        return noised(table, self._latents(found, rows_of(found, len(keys)), keys), keys)


class StableDiffusionImg2ImgPipeline(ImageToImage):
    """Image to image."""

    @classmethod
    def channels(cls, latent: int) -> dict[int, str]:
        """Samples alone."""
        return {latent: "latents"}

    def __call__(
        self,
        prompt: Texts | None,
        key: ArrayLike,
        *,
        image: Any,
        strength: float | None = None,
        num_inference_steps: int = STEPS,
        **options: Unpack[PromptOptions],
    ) -> TextOutput:
        """Generates images from prompts and images.

        Args:
            prompt: as in `StableDiffusionPipeline`.
            key: as in `StableDiffusionPipeline`.
            image: a PIL image (scaled down to multiples of the autoencoder's factor), a list of
                them, or an array (H, W, 3) or (K, H, W, 3) in [0, 1]; or latents (K, h, w, c). One
                for all prompts, or one for each.
            strength: above 0 and at most 1, by default 0.8: the part of the steps that is run. The
                image is noised to the level where they begin; with `x_T` it is not encoded. A
                `table` takes its place.
            num_inference_steps: steps of the scheduler, of which the last strength * steps are run.
            **options: see `PromptOptions`.

        Returns:
            Images, as `StableDiffusionPipeline`.

        Raises:
            TypeError: as `StableDiffusionPipeline`.
            ValueError: as `StableDiffusionPipeline`; or the images have a wrong size or range.
        """
        check_options(options, PromptOptions)
        found = self._pictures(image)
        start = self._start(num_inference_steps, strength, options)

        def begin(table: Table, keys: Keys, x_T: Samples | None) -> Beginning:
            return Beginning(x_T=self._noised(found, table, keys, x_T))

        run = {"num_inference_steps": num_inference_steps, "start": start}
        shape = self._shape_of(found)
        return self._call(prompt, key, run, begin, shape, pictures=len(found.values), **options)

    def encode(
        self,
        prompt: Texts | None,
        *,
        image: Any,
        num_inference_steps: int = STEPS,
        **options: Unpack[PromptOptions],
    ) -> Float[Array, "b h w c"]:
        """The noise of images: x_T from which a run with the same prompt ends close to them.

        The run is walked the other way (`ddpm_jax.inverted`), from the mean of the autoencoder's
        posterior. `StableDiffusionPipeline.from_pipe(pipe)(prompt, key, x_T=x_T)` leads back, with
        the same steps and guidance; another prompt edits the image.

        Args:
            prompt: what the images show, as in the call.
            image: as in the call.
            num_inference_steps: of the scheduler's run.
            **options: guidance_scale (by default 1, none, which is the most exact),
                negative_prompt, prompt_embeds, negative_prompt_embeds, clip_skip, table (a run
                down in place of the scheduler's), progress.

        Returns:
            (B, h, w, c) for `x_T=`.

        Raises:
            TypeError: an unknown option.
            ValueError: the scheduler's run adds noise, has a history or clips; or as the call.
        """
        check_options(options, PromptOptions)
        found = self._pictures(image)

        def begin(table: Table, keys: Keys, x_T: Samples | None) -> Beginning:
            return Beginning(x_T=self._latents(found, rows_of(found, len(keys)), None))

        given: Any = {"guidance_scale": 1.0, **options, "output_type": "latent"}
        given["table"] = table_up(self.scheduler, num_inference_steps, options.get("table"))
        run, shape = {"num_inference_steps": STEPS}, self._shape_of(found)
        output: Any = self._call(
            prompt, jax.random.key(0), run, begin, shape, pictures=len(found.values), **given
        )
        return output[0]
