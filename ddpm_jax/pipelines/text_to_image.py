"""Text to image with Stable Diffusion."""

from typing import Unpack

from jax.typing import ArrayLike

from ddpm_jax.pipelines.beginning import Beginning, Keys, Samples, first_noise
from ddpm_jax.pipelines.call import check_options
from ddpm_jax.pipelines.prompts import Texts
from ddpm_jax.pipelines.stable_diffusion import (
    STEPS,
    PromptOptions,
    StableDiffusion,
    TextOutput,
)
from ddpm_jax.tables.table import Table


class StableDiffusionPipeline(StableDiffusion):
    """Text to image."""

    @classmethod
    def channels(cls, latent: int) -> dict[int, str]:
        """Latents alone."""
        return {latent: "latents"}

    def __call__(
        self,
        prompt: Texts | None,
        key: ArrayLike,
        *,
        num_inference_steps: int = STEPS,
        height: int | None = None,
        width: int | None = None,
        guidance_rescale: float = 0.0,
        **options: Unpack[PromptOptions],
    ) -> TextOutput:
        """Generates images from prompts.

        A second call with the same shapes compiles nothing, even with other prompts, another number
        of steps or another guidance scale. Ctrl-C stops a run between two evaluations.

        Args:
            prompt: one text or several; None if `prompt_embeds` are given.
            key: `jax.random.key(seed)`. The key of image i is fold_in(key, i), so the image does
                not depend on the batch size. Or (B,) keys, to generate chosen images again.
            num_inference_steps: steps of the scheduler.
            height: of the images in pixels, a multiple of the autoencoder's factor (8). The default
                is the network's own size.
            width: as `height`.
            guidance_rescale: in [0, 1], how far the guided output gets the standard deviation of
                the conditional one (Lin et al. 2023, arXiv:2305.08891).
            **options: see `PromptOptions`: guidance_scale, guidance_interval, negative_prompt,
                num_images_per_prompt, eta, prompt_embeds, negative_prompt_embeds, clip_skip,
                output_type, table, x_T, return_dict, sharding, progress, callback,
                callback_every, advanced.

        Returns:
            Images, `num_images_per_prompt` of the first prompt, then of the second.

        Raises:
            TypeError: `key` is missing or is not a key, or an unknown option.
            ValueError: an argument is out of range, or does not match another one or the model.
        """
        check_options(options, PromptOptions)
        if not 0 <= guidance_rescale <= 1:
            raise ValueError(f"guidance_rescale must lie in [0, 1], got {guidance_rescale}")

        def begin(table: Table, keys: Keys, x_T: Samples | None) -> Beginning:
            return Beginning(x_T=first_noise(table, keys, shape) if x_T is None else x_T)

        run = {"num_inference_steps": num_inference_steps}
        shape = self._latent_shape(options.get("x_T"), height, width)
        return self._call(
            prompt, key, run, begin, shape, guidance_rescale=guidance_rescale, **options
        )
