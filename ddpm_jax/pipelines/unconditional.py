"""The pipelines with one network: from a checkpoint and a key to images.

`DDPMPipeline`, `DDIMPipeline` and `PNDMPipeline` differ in their defaults and in their initial
scheduler. Any scheduler may be assigned later.
"""

import inspect
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, TypeAlias, TypedDict, TypeVar, Unpack, get_args

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.typing import ArrayLike
from jaxtyping import Array, Float
from PIL.Image import Image

from ddpm_jax.hub import class_names
from ddpm_jax.images import to_pil
from ddpm_jax.models import UNet2DModel
from ddpm_jax.pipelines.base import DiffusionPipeline
from ddpm_jax.pipelines.generate import Preview, generate, moving, with_inputs
from ddpm_jax.pipelines.inputs import Labels, check_channels, check_pil, count_of, make_inputs
from ddpm_jax.schedulers import DDIMScheduler, PNDMScheduler, Scheduler
from ddpm_jax.tables.table import Table

UNET = UNet2DModel.files.folder
PipelineT = TypeVar("PipelineT", bound="UnconditionalPipeline")
OutputType: TypeAlias = Literal["pil", "np", "jax"]


class CallOptions(TypedDict, total=False):
    """Options of a call, the same for all pipelines with one network."""

    batch_size: int | None
    """Number of images. Default: the number of keys or of rows of x_T, or one."""
    table: Table | None
    """Any table of a scheduler. It replaces the number of steps and the scheduler's options. With
    `start=` and `x_T` a run is image to image."""
    class_labels: Labels | None
    """For class-conditional models: one label, or one for each image. A label is a number, or a
    name of `pipe.class_names`."""
    guidance_scale: float
    """Classifier-free guidance (Ho & Salimans 2022, arXiv:2207.12598), for networks that were
    trained with dropped labels: output = negative + scale (conditional - negative). Up to 1, the
    default, there is none. Each evaluation then takes a batch of twice the size."""
    negative_labels: Labels | None
    """What guidance moves away from; the default is the class that means "no class"."""
    x_T: ArrayLike | None
    """(B, H, W, C) starting point, already multiplied by `table.init_scale`. It replaces the noise
    that is drawn from the key."""
    output_type: OutputType
    """"pil", the default; "np" or "jax" for float32 arrays (B, H, W, C) in [0, 1]."""
    return_dict: bool
    """False returns the tuple (images,)."""
    sharding: NamedSharding | None
    """Splits the batch over a mesh's devices: NamedSharding(mesh, P("batch")). The batch is padded
    to a multiple of the parts; the padding is dropped at the end. Params that are not on the mesh
    are copied to it at each call. To avoid the copy, load them with `sharding=`."""
    progress: bool
    """Show a progress bar of network evaluations; the default is True."""
    callback: Preview | None
    """Called as callback(evaluations, images) after every `callback_every` evaluations and after
    the last one. `images` are the predicted clean images, a NumPy array as for "np"."""
    callback_every: int
    """See `callback`; the default is 1."""


class ImagePipelineOutput(NamedTuple):
    """The result of a pipeline.

    Attributes:
        images: PIL images, or a float32 array (B, H, W, C) in [0, 1]: of NumPy for
            `output_type="np"`, of jax for "jax".
    """

    images: list[Image] | Float[np.ndarray, "b h w c"] | Float[Array, "b h w c"]


Output: TypeAlias = ImagePipelineOutput | tuple[Any]


class UnconditionalPipeline(DiffusionPipeline):
    """A network, its params and a scheduler.

    Args:
        unet: the model.
        params: its params, a plain nested dict.
        scheduler: any scheduler.

    Attributes:
        unet: the model.
        params: its params.
        scheduler: the scheduler, after conversion. Another may be assigned.
        class_names: the names of its classes by number; empty if they have none.

    Raises:
        ValueError: a component is not of these classes.
    """

    model_classes = (UNet2DModel,)

    def __init__(self, *, unet: UNet2DModel, params: Any, scheduler: Scheduler):
        super().__init__({UNET: unet}, {UNET: params}, scheduler)

    @classmethod
    def _check_network(cls, model: Any) -> None:
        check_channels(model.config)

    @classmethod
    def _assembled(
        cls: type[PipelineT],
        models: Mapping[str, Any],
        params: Mapping[str, Any],
        scheduler: Scheduler,
    ) -> PipelineT:
        return cls(unet=models[UNET], params=params[UNET], scheduler=scheduler)

    @property
    def unet(self) -> UNet2DModel:
        """The model. Another may be assigned."""
        return self._models[UNET]  # pyright: ignore[reportReturnType]

    @unet.setter
    def unet(self, unet: UNet2DModel) -> None:
        self._check_network(unet)
        self._models[UNET] = unet

    @property
    def params(self) -> Any:
        """The model's params. Others may be assigned."""
        return self._params[UNET]

    @params.setter
    def params(self, params: Any) -> None:
        self._params[UNET] = params

    @property
    def components(self) -> dict[str, Any]:
        """The components, by the constructor's argument names."""
        return {"unet": self.unet, "params": self.params, "scheduler": self.scheduler}

    def __repr__(self) -> str:
        count = sum(int(np.prod(np.shape(leaf))) for leaf in jax.tree.leaves(self.params))
        size, channels = self.unet.config.sample_size, self.unet.config.in_channels
        unet = f"<UNet2DModel, sample_size={size}, in_channels={channels}, {count:,} params>"
        return f"{type(self).__name__}(unet={unet}, scheduler=<{type(self.scheduler).__name__}>)"

    @abstractmethod
    def __call__(self, key: ArrayLike, *, num_inference_steps: int = 50, **options: Any) -> Output:
        """Generates images; see `DDPMPipeline`. The pipelines differ in their defaults."""

    def _call(
        self,
        key: ArrayLike,
        run: Mapping[str, Any],
        *,
        table: Table | None = None,
        batch_size: int | None = None,
        class_labels: Labels | None = None,
        guidance_scale: float = 1.0,
        negative_labels: Labels | None = None,
        x_T: Any = None,
        output_type: OutputType = "pil",
        return_dict: bool = True,
        sharding: NamedSharding | None = None,
        progress: bool = True,
        callback: Preview | None = None,
        callback_every: int = 1,
    ) -> Output:
        """Generates images; `run` is the number of steps and the scheduler's options."""
        from tqdm.auto import tqdm

        if output_type not in get_args(OutputType):
            raise ValueError(f'output_type must be "pil", "np" or "jax", got {output_type!r}')
        if output_type == "pil":
            check_pil(self.unet)
        callback_every = count_of("callback_every", callback_every)
        chosen = self._table(table, run)
        if guidance_scale > 1 and negative_labels is None:
            negative_labels = self._no_class(class_labels)
        inputs = make_inputs(
            self.unet,
            chosen,
            key,
            batch_size=batch_size,
            class_labels=self._numbers(class_labels),
            negative_labels=self._numbers(negative_labels) if guidance_scale > 1 else None,
            x_T=x_T,
            sharding=sharding,
        )
        params = inputs.place(self.params)
        denoise, params = with_inputs(self.unet, params, inputs, guidance_scale)
        with tqdm(total=len(chosen), disable=not progress) as bar:
            images = generate(
                denoise,
                params,
                chosen,
                inputs,
                advanced=moving(bar),
                preview=callback,
                preview_every=callback_every,
            )
        converted = _as(output_type, images)
        return ImagePipelineOutput(converted) if return_dict else (converted,)

    def _numbers(self, labels: Labels | None) -> Any:
        """Labels with names replaced by numbers."""
        given = [labels] if isinstance(labels, str) else labels
        if not (isinstance(given, list | tuple) and any(isinstance(one, str) for one in given)):
            return labels
        numbers = class_names.numbers_of(given, self.class_names)
        return numbers[0] if isinstance(labels, str) else numbers

    def _no_class(self, labels: Labels | None) -> int:
        """The class that means no class. ValueError if guidance is not possible."""
        if labels is None:
            raise ValueError("guidance_scale needs class_labels")
        found = class_names.no_class(self.class_names)
        if found is None:
            raise ValueError(
                "guidance_scale needs a network that was trained with dropped labels, and this one "
                "names no class that means no class: pass negative_labels"
            )
        return found

    def _table(self, table: Table | None, run: Mapping[str, Any]) -> Table:
        """The given table, or the scheduler's. Options of 0, False or None are not passed on."""
        defaults = inspect.signature(type(self).__call__).parameters
        if table is not None:
            if not isinstance(table, Table):
                raise ValueError(f"table must be a ddpm_jax.Table, got {type(table).__name__}")
            also = [f"{k}={v}" for k, v in run.items() if v != defaults[k].default]
            if also:
                raise ValueError(f"table= replaces {', '.join(also)}: pass one or the other")
            return table
        steps = run["num_inference_steps"]
        wanted = {k: v for k, v in run.items() if v and k != "num_inference_steps"}
        accepted = inspect.signature(self.scheduler.table).parameters
        refused = sorted(set(wanted) - set(accepted))
        if refused:
            raise ValueError(
                f"{type(self.scheduler).__name__} has no option {' or '.join(refused)}: "
                f"leave out {' and '.join(f'{name}={wanted[name]}' for name in refused)}"
            )
        return self.scheduler.table(steps, **wanted)


class DDPMPipeline(UnconditionalPipeline):
    """Ancestral sampling, 1000 steps by default. The scheduler is not converted.

    Reference: Ho et al. 2020, arXiv:2006.11239.
    """

    def __call__(
        self, key: ArrayLike, *, num_inference_steps: int = 1000, **options: Unpack[CallOptions]
    ) -> Output:
        """Generates images.

        A second call with the same shapes compiles nothing, even with another number of steps.
        Ctrl-C stops a run between two evaluations of the network.

        Args:
            key: `jax.random.key(seed)`. The key of image i is fold_in(key, i), so the image does
                not depend on the batch size. Or (B,) keys, to generate chosen images again. Legacy
                keys are accepted.
            num_inference_steps: steps of the scheduler.
            **options: see `CallOptions`: batch_size, table, class_labels, x_T, output_type,
                return_dict, sharding, progress, callback, callback_every.

        Returns:
            The images.

        Raises:
            TypeError: `key` is missing or is not a key, or an unknown option.
            ValueError: an argument is out of range, or does not match another one or the model.
        """
        return self._call(key, {"num_inference_steps": num_inference_steps}, **options)


class DDIMPipeline(UnconditionalPipeline):
    """Implicit sampling, 50 steps by default. The scheduler is converted to a `DDIMScheduler`.

    Reference: Song et al. 2021, arXiv:2010.02502.
    """

    scheduler_class = DDIMScheduler

    def __call__(
        self,
        key: ArrayLike,
        *,
        num_inference_steps: int = 50,
        eta: float = 0.0,
        use_clipped_model_output: bool | None = None,
        **options: Unpack[CallOptions],
    ) -> Output:
        """Generates images, as `DDPMPipeline`, with two more options for DDIM.

        Args:
            key: see `DDPMPipeline`.
            num_inference_steps: steps of the scheduler.
            eta: amount of noise relative to DDPM, 0 (deterministic) to 1.
            use_clipped_model_output: compute eps from the clipped x0.
            **options: see `CallOptions`.

        Returns:
            The images.

        Raises:
            TypeError: as `DDPMPipeline`.
            ValueError: as `DDPMPipeline`; or the scheduler does not have the option eta or
                use_clipped_model_output.
        """
        run = {
            "num_inference_steps": num_inference_steps,
            "eta": eta,
            "use_clipped_model_output": use_clipped_model_output,
        }
        return self._call(key, run, **options)


class PNDMPipeline(UnconditionalPipeline):
    """Pseudo linear multistep sampling, 50 steps by default. The scheduler is converted to a
    `PNDMScheduler`.

    Reference: Liu et al. 2022, arXiv:2202.09778.
    """

    scheduler_class = PNDMScheduler

    def __call__(
        self, key: ArrayLike, *, num_inference_steps: int = 50, **options: Unpack[CallOptions]
    ) -> Output:
        """Generates images. Arguments, results and errors as in `DDPMPipeline`."""
        return self._call(key, {"num_inference_steps": num_inference_steps}, **options)


def _as(output_type: OutputType, images: Float[Array, "b h w c"]) -> Any:
    if output_type == "jax":
        return images
    host = np.asarray(images)
    return host if output_type == "np" else to_pil(host)
