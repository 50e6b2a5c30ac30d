"""RePaint: inpainting with any network in pixel space."""

from typing import Any, Unpack

from jax.typing import ArrayLike

from ddpm_jax.pipelines.unconditional import CallOptions, Output, UnconditionalPipeline
from ddpm_jax.schedulers import RePaintScheduler


class RePaintPipeline(UnconditionalPipeline):
    """Inpainting, 250 steps by default. The scheduler is converted to a `RePaintScheduler`.

    Reference: Lugmayr et al. 2022, arXiv:2201.09865.
    """

    scheduler_class = RePaintScheduler

    def __call__(
        self,
        key: ArrayLike,
        *,
        num_inference_steps: int = 250,
        jump_length: int | None = None,
        jump_n_sample: int | None = None,
        **options: Unpack[CallOptions],
    ) -> Output:
        """Generates the masked part of images.

        Args:
            key: see `DDPMPipeline`.
            num_inference_steps: steps of the scheduler. With jumps there are more evaluations.
            jump_length: see `RePaintScheduler.table`; the default is its own.
            jump_n_sample: see `RePaintScheduler.table`; the default is its own.
            **options: see `CallOptions`; image and mask_image must be given. White is made anew; in
                diffusers' pipeline it is black.

        Returns:
            The images.

        Raises:
            TypeError: as `DDPMPipeline`.
            ValueError: as `DDPMPipeline`; or the scheduler does not have the options.
        """
        run: dict[str, Any] = {
            "num_inference_steps": num_inference_steps,
            "jump_length": jump_length,
            "jump_n_sample": jump_n_sample,
        }
        if missing := [name for name in ("image", "mask_image") if options.get(name) is None]:
            raise ValueError(f"RePaint needs image and mask_image: pass {' and '.join(missing)}")
        return self._call(key, run, **options)
