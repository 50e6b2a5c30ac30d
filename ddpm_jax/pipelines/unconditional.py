"""The pipelines: from a checkpoint and a key to pictures.

`DDPMPipeline`, `DDIMPipeline` and `PNDMPipeline` differ in their defaults and in the scheduler that
they start with; afterwards any scheduler may be assigned.
"""

from typing import Any

from jax.sharding import NamedSharding
from jax.typing import ArrayLike

from ddpm_jax.pipelines.base import (
    Callback,
    ImagePipelineOutput,
    OutputType,
)
from ddpm_jax.pipelines.base import DiffusionPipeline as DiffusionPipeline
from ddpm_jax.pipelines.inputs import Labels
from ddpm_jax.schedulers import DDIMScheduler, PNDMScheduler


class DDPMPipeline(DiffusionPipeline):
    """Ancestral sampling, 1000 steps by default; keeps the scheduler that it is given.

    Reference: Ho et al. 2020, arXiv:2006.11239.
    """

    def __call__(
        self,
        key: ArrayLike,
        *,
        batch_size: int | None = None,
        num_inference_steps: int = 1000,
        class_labels: Labels | None = None,
        x_T: ArrayLike | None = None,
        output_type: OutputType = "pil",
        return_dict: bool = True,
        sharding: NamedSharding | None = None,
        progress: bool = True,
        callback: Callback | None = None,
        callback_every: int = 1,
    ) -> ImagePipelineOutput | tuple[Any]:
        """Makes images.

        A second call with the same shapes compiles nothing, whatever its number of steps. Ctrl-C
        ends a run between two evaluations of the network.

        Args:
            key: `jax.random.key(seed)`; image i's own key is fold_in(key, i), so that it does not
                depend on the batch. Or (B,) keys, to make chosen images again. Legacy keys too.
            batch_size: images to make. Default: one, or as many as there are keys or rows of x_T.
            num_inference_steps: steps of the scheduler.
            class_labels: for class-conditional models: one label, or one for each image.
            x_T: (B, H, W, C) to start from, already times `table.init_scale`, in place of noise
                drawn from the key.
            output_type: "pil"; "np" or "jax" for float32 arrays (B, H, W, C) in [0, 1].
            return_dict: False returns the tuple (images,).
            sharding: splits the batch over a mesh's devices: NamedSharding(mesh, P("batch")). The
                batch is padded to a multiple and cut again. Params that are not on the mesh are
                copied to it at each call: load them with `sharding=` to avoid that.
            progress: show a bar that counts evaluations of the network.
            callback: called as callback(evaluations, images) after every `callback_every`
                evaluations and after the last one, images being the prediction of the clean ones
                made there, a NumPy array as for "np".
            callback_every: see `callback`.

        Returns:
            The images.

        Raises:
            TypeError: `key` is missing or is no key.
            ValueError: an argument out of its range, or that does not fit another or the model.
        """
        return self._generate(
            key,
            self._table(num_inference_steps),
            batch_size=batch_size,
            class_labels=class_labels,
            x_T=x_T,
            output_type=output_type,
            return_dict=return_dict,
            sharding=sharding,
            progress=progress,
            callback=callback,
            callback_every=callback_every,
        )


class DDIMPipeline(DiffusionPipeline):
    """Implicit sampling, 50 steps by default; turns its scheduler into a `DDIMScheduler`.

    Reference: Song et al. 2021, arXiv:2010.02502.
    """

    scheduler_class = DDIMScheduler

    def __call__(
        self,
        key: ArrayLike,
        *,
        batch_size: int | None = None,
        num_inference_steps: int = 50,
        eta: float = 0.0,
        use_clipped_model_output: bool | None = None,
        class_labels: Labels | None = None,
        x_T: ArrayLike | None = None,
        output_type: OutputType = "pil",
        return_dict: bool = True,
        sharding: NamedSharding | None = None,
        progress: bool = True,
        callback: Callback | None = None,
        callback_every: int = 1,
    ) -> ImagePipelineOutput | tuple[Any]:
        """Makes images; arguments as in `DDPMPipeline`, and two of DDIM's own.

        Args:
            key: see `DDPMPipeline`.
            batch_size: see `DDPMPipeline`.
            num_inference_steps: steps of the scheduler.
            eta: share of DDPM's noise, 0 (deterministic) to 1.
            use_clipped_model_output: read the noise from the clipped x0.
            class_labels: see `DDPMPipeline`.
            x_T: see `DDPMPipeline`.
            output_type: see `DDPMPipeline`.
            return_dict: see `DDPMPipeline`.
            sharding: see `DDPMPipeline`.
            progress: see `DDPMPipeline`.
            callback: see `DDPMPipeline`.
            callback_every: see `DDPMPipeline`.

        Returns:
            The images.

        Raises:
            TypeError: `key` is missing or is no key.
            ValueError: as `DDPMPipeline`; or eta or use_clipped_model_output with a scheduler that
                has no such option.
        """
        return self._generate(
            key,
            self._table(
                num_inference_steps, eta=eta, use_clipped_model_output=use_clipped_model_output
            ),
            batch_size=batch_size,
            class_labels=class_labels,
            x_T=x_T,
            output_type=output_type,
            return_dict=return_dict,
            sharding=sharding,
            progress=progress,
            callback=callback,
            callback_every=callback_every,
        )


class PNDMPipeline(DiffusionPipeline):
    """Pseudo linear multistep sampling, 50 steps by default; turns its scheduler into a
    `PNDMScheduler`.

    Reference: Liu et al. 2022, arXiv:2202.09778.
    """

    scheduler_class = PNDMScheduler

    def __call__(
        self,
        key: ArrayLike,
        *,
        batch_size: int | None = None,
        num_inference_steps: int = 50,
        class_labels: Labels | None = None,
        x_T: ArrayLike | None = None,
        output_type: OutputType = "pil",
        return_dict: bool = True,
        sharding: NamedSharding | None = None,
        progress: bool = True,
        callback: Callback | None = None,
        callback_every: int = 1,
    ) -> ImagePipelineOutput | tuple[Any]:
        """Makes images; arguments, results and errors as in `DDPMPipeline`."""
        return self._generate(
            key,
            self._table(num_inference_steps),
            batch_size=batch_size,
            class_labels=class_labels,
            x_T=x_T,
            output_type=output_type,
            return_dict=return_dict,
            sharding=sharding,
            progress=progress,
            callback=callback,
            callback_every=callback_every,
        )
