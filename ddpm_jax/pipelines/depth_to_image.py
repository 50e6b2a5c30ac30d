"""Depth to image with Stable Diffusion 2: image to image by a network that sees the depth."""

from functools import partial
from pathlib import Path
from typing import Any, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from ddpm_jax.models import DPTForDepthEstimation
from ddpm_jax.pipelines.base import Component
from ddpm_jax.pipelines.beginning import Beginning, Keys, Samples, rows_of
from ddpm_jax.pipelines.call import check_options
from ddpm_jax.pipelines.image_processors import DPT_PROCESSOR, write_processor
from ddpm_jax.pipelines.image_to_image import ImageToImage
from ddpm_jax.pipelines.pictures import Pictures, depths
from ddpm_jax.pipelines.prompts import Texts
from ddpm_jax.pipelines.stable_diffusion import (
    STEPS,
    PromptOptions,
    TextOutput,
)
from ddpm_jax.tables.table import Table


class StableDiffusionDepth2ImgPipeline(ImageToImage):
    """Image to image that keeps the depth. Constructor as `StableDiffusion`, with
    `depth_estimator`, which may be None if every call gets a `depth_map`.
    """

    depth_estimator = Component(DPTForDepthEstimation, optional=True)
    """The network that estimates depth."""
    safety_checker = None  # diffusers' pipeline has none

    @classmethod
    def channels(cls, latent: int) -> dict[int, str]:
        """Latents and depth."""
        return {latent + 1: "latents, depth"}

    def __call__(
        self,
        prompt: Texts | None,
        key: ArrayLike,
        *,
        image: Any,
        depth_map: ArrayLike | None = None,
        strength: float | None = None,
        num_inference_steps: int = STEPS,
        **options: Unpack[PromptOptions],
    ) -> TextOutput:
        """Generates images with the depth of given ones.

        Args:
            prompt: as in `StableDiffusionPipeline`.
            key: as in `StableDiffusionPipeline`.
            image: as in `StableDiffusionImg2ImgPipeline`.
            depth_map: (H, W) or (K, H, W) of any size and range, larger is closer; None: estimated
                from the image. A constant depth says nothing.
            strength: as in `StableDiffusionImg2ImgPipeline`.
            num_inference_steps: as in `StableDiffusionImg2ImgPipeline`.
            **options: see `PromptOptions`.

        Returns:
            Images, as `StableDiffusionPipeline`.

        Raises:
            TypeError: as `StableDiffusionPipeline`.
            ValueError: as `StableDiffusionImg2ImgPipeline`; or there is no depth, or it has a wrong
                shape.
        """
        check_options(options, PromptOptions)
        found = self._pictures(image)
        start = self._start(num_inference_steps, strength, options)
        height, width, _ = shape = self._shape_of(found)
        if depth_map is None and (self.depth_estimator is None or found.latent):
            why = "the image is latents" if found.latent else "there is no depth_estimator"
            raise ValueError(f"{why}: pass depth_map")
        given = None if depth_map is None else depths(depth_map, (height, width))
        if given is not None and len(given) not in (1, len(found.values)):
            raise ValueError(f"got {len(given)} depth maps for {len(found.values)} images")

        def begin(table: Table, keys: Keys, x_T: Samples | None) -> Beginning:
            depth = depths(self._estimated(found), (height, width)) if given is None else given
            depth = np.broadcast_to(depth, (len(found.values), *depth.shape[1:]))
            channels = jnp.asarray(depth[rows_of(found, len(keys))])
            return Beginning(x_T=self._noised(found, table, keys, x_T), channels=channels)

        run = {"num_inference_steps": num_inference_steps, "start": start}
        return self._call(prompt, key, run, begin, shape, pictures=len(found.values), **options)

    def _estimated(self, found: Pictures) -> Float[np.ndarray, "k h w"]:
        model = self.depth_estimator
        pixels = model.preprocess((255 * found.values).round().astype(np.uint8))
        params = self.params["depth_estimator"]
        return np.asarray(_depth(model, params, jnp.asarray(pixels)))

    def _written(self, folder: Path) -> dict[str, Any]:
        if self.depth_estimator is not None:
            write_processor(folder, DPT_PROCESSOR)
        processor = "transformers", "DPTImageProcessor"
        return {"feature_extractor": self.depth_estimator and processor}


@partial(jax.jit, static_argnames="model")
def _depth(model: DPTForDepthEstimation, params: Any, pixels: Array) -> Any:
    return model.apply({"params": params}, pixels)
