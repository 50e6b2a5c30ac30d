"""The pipelines of one network: from a checkpoint and a key to images.

`DDPMPipeline`, `DDIMPipeline` and `PNDMPipeline` differ in their defaults and in the scheduler that
they start with; afterwards any scheduler may be assigned.
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

from ddpm_jax.images import to_pil
from ddpm_jax.models import UNet2DModel
from ddpm_jax.pipelines.base import DiffusionPipeline
from ddpm_jax.pipelines.generate import Network, Preview, generate
from ddpm_jax.pipelines.inputs import Labels, check_pil, count_of, make_inputs
from ddpm_jax.schedulers import DDIMScheduler, PNDMScheduler, Scheduler
from ddpm_jax.tables.table import Table

UNET = UNet2DModel.files.folder
PipelineT = TypeVar("PipelineT", bound="UnconditionalPipeline")
OutputType: TypeAlias = Literal["pil", "np", "jax"]


class CallOptions(TypedDict, total=False):
    """Options of a call, the same for all pipelines of one network."""

    batch_size: int | None
    """Images to make. Default: one, or as many as there are keys or rows of x_T."""
    table: Table | None
    """Any table of a scheduler, in place of the number of steps and the scheduler's options: with
    `start=` it begins in the middle, which with `x_T` is image to image."""
    class_labels: Labels | None
    """For class-conditional models: one label, or one for each image."""
    x_T: ArrayLike | None
    """(B, H, W, C) to start from, already times `table.init_scale`, in place of noise drawn from
    the key."""
    output_type: OutputType
    """"pil", the default; "np" or "jax" for float32 arrays (B, H, W, C) in [0, 1]."""
    return_dict: bool
    """False returns the tuple (images,)."""
    sharding: NamedSharding | None
    """Splits the batch over a mesh's devices: NamedSharding(mesh, P("batch")). The batch is padded
    to a multiple and cut again. Params that are not on the mesh are copied to it at each call: load
    them with `sharding=` to avoid that."""
    progress: bool
    """Show a bar that counts evaluations of the network; the default is True."""
    callback: Preview | None
    """Called as callback(evaluations, images) after every `callback_every` evaluations and after
    the last one. `images` are the clean images predicted there, a NumPy array as for "np"."""
    callback_every: int
    """See `callback`; the default is 1."""


class ImagePipelineOutput(NamedTuple):
    """What a pipeline returns.

    Attributes:
        images: PIL images, or a float32 array (B, H, W, C) in [0, 1]: NumPy's for
            `output_type="np"`, jax's for "jax".
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
        scheduler: the scheduler, after conversion; may be replaced.

    Raises:
        ValueError: a component that is not of these kinds.
    """

    model_classes = (UNet2DModel,)

    def __init__(self, *, unet: UNet2DModel, params: Any, scheduler: Scheduler):
        super().__init__({UNET: unet}, {UNET: params}, scheduler)

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
        """The model, which may be replaced."""
        return self._models[UNET]  # pyright: ignore[reportReturnType]

    @unet.setter
    def unet(self, unet: UNet2DModel) -> None:
        self._models[UNET] = unet

    @property
    def params(self) -> Any:
        """The model's params, which may be replaced."""
        return self._params[UNET]

    @params.setter
    def params(self, params: Any) -> None:
        self._params[UNET] = params

    @property
    def components(self) -> dict[str, Any]:
        """What the pipeline is made of, by the constructor's names."""
        return {"unet": self.unet, "params": self.params, "scheduler": self.scheduler}

    def __repr__(self) -> str:
        count = sum(int(np.prod(np.shape(leaf))) for leaf in jax.tree.leaves(self.params))
        size, channels = self.unet.config.sample_size, self.unet.config.in_channels
        unet = f"<UNet2DModel, sample_size={size}, in_channels={channels}, {count:,} params>"
        return f"{type(self).__name__}(unet={unet}, scheduler=<{type(self.scheduler).__name__}>)"

    @abstractmethod
    def __call__(self, key: ArrayLike, *, num_inference_steps: int = 50, **options: Any) -> Output:
        """Makes images; see `DDPMPipeline`. The pipelines differ in their defaults."""

    def _call(
        self,
        key: ArrayLike,
        run: Mapping[str, Any],
        *,
        table: Table | None = None,
        batch_size: int | None = None,
        class_labels: Labels | None = None,
        x_T: Any = None,
        output_type: OutputType = "pil",
        return_dict: bool = True,
        sharding: NamedSharding | None = None,
        progress: bool = True,
        callback: Preview | None = None,
        callback_every: int = 1,
    ) -> Output:
        """Makes images; `run` is the number of steps and the scheduler's options."""
        from tqdm.auto import tqdm

        if output_type not in get_args(OutputType):
            raise ValueError(f'output_type must be "pil", "np" or "jax", got {output_type!r}')
        if output_type == "pil":
            check_pil(self.unet)
        callback_every = count_of("callback_every", callback_every)
        chosen = self._table(table, run)
        inputs = make_inputs(
            self.unet,
            chosen,
            key,
            batch_size=batch_size,
            class_labels=class_labels,
            x_T=x_T,
            sharding=sharding,
        )
        network = Network(self.unet)
        with tqdm(total=len(chosen), disable=not progress) as bar:
            images = generate(
                network,
                network.params(inputs.place(self.params), inputs),
                chosen,
                inputs,
                advanced=bar.update,
                preview=callback,
                preview_every=callback_every,
            )
        made = _as(output_type, images)
        return ImagePipelineOutput(made) if return_dict else (made,)

    def _table(self, table: Table | None, run: Mapping[str, Any]) -> Table:
        """The table given, or the scheduler's; an option at its neutral value is not passed on."""
        defaults = inspect.signature(type(self).__call__).parameters
        if table is not None:
            if not isinstance(table, Table):
                raise ValueError(f"table must be a ddpm_jax.Table, got {type(table).__name__}")
            also = [f"{k}={v}" for k, v in run.items() if v != defaults[k].default]
            if also:
                raise ValueError(f"table= replaces {', '.join(also)}: give one or the other")
            return table
        steps = run["num_inference_steps"]
        wanted = {k: v for k, v in run.items() if v and k != "num_inference_steps"}
        accepted = inspect.signature(self.scheduler.table).parameters
        refused = sorted(set(wanted) - set(accepted))
        if refused:
            raise ValueError(
                f"{type(self.scheduler).__name__} takes no {' or '.join(refused)}: "
                f"leave out {' and '.join(f'{name}={wanted[name]}' for name in refused)}"
            )
        return self.scheduler.table(steps, **wanted)


class DDPMPipeline(UnconditionalPipeline):
    """Ancestral sampling, 1000 steps by default; keeps the scheduler that it is given.

    Reference: Ho et al. 2020, arXiv:2006.11239.
    """

    def __call__(
        self, key: ArrayLike, *, num_inference_steps: int = 1000, **options: Unpack[CallOptions]
    ) -> Output:
        """Makes images.

        A second call with the same shapes compiles nothing, whatever its number of steps. Ctrl-C
        ends a run between two evaluations of the network.

        Args:
            key: `jax.random.key(seed)`; image i's own key is fold_in(key, i), so that it does not
                depend on the batch. Or (B,) keys, to make chosen images again. Legacy keys too.
            num_inference_steps: steps of the scheduler.
            **options: see `CallOptions`: batch_size, table, class_labels, x_T, output_type,
                return_dict, sharding, progress, callback, callback_every.

        Returns:
            The images.

        Raises:
            TypeError: `key` is missing or is not a key, or an unknown option.
            ValueError: an argument out of its range, or that does not fit another or the model.
        """
        return self._call(key, {"num_inference_steps": num_inference_steps}, **options)


class DDIMPipeline(UnconditionalPipeline):
    """Implicit sampling, 50 steps by default; turns its scheduler into a `DDIMScheduler`.

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
        """Makes images, as `DDPMPipeline`, with two options of DDIM's own.

        Args:
            key: see `DDPMPipeline`.
            num_inference_steps: steps of the scheduler.
            eta: share of DDPM's noise, 0 (deterministic) to 1.
            use_clipped_model_output: read the noise from the clipped x0.
            **options: see `CallOptions`.

        Returns:
            The images.

        Raises:
            TypeError: as `DDPMPipeline`.
            ValueError: as `DDPMPipeline`; or eta or use_clipped_model_output with a scheduler that
                has no such option.
        """
        run = {
            "num_inference_steps": num_inference_steps,
            "eta": eta,
            "use_clipped_model_output": use_clipped_model_output,
        }
        return self._call(key, run, **options)


class PNDMPipeline(UnconditionalPipeline):
    """Pseudo linear multistep sampling, 50 steps by default; turns its scheduler into a
    `PNDMScheduler`.

    Reference: Liu et al. 2022, arXiv:2202.09778.
    """

    scheduler_class = PNDMScheduler

    def __call__(
        self, key: ArrayLike, *, num_inference_steps: int = 50, **options: Unpack[CallOptions]
    ) -> Output:
        """Makes images; arguments, results and errors as in `DDPMPipeline`."""
        return self._call(key, {"num_inference_steps": num_inference_steps}, **options)


def _as(output_type: OutputType, images: Float[Array, "b h w c"]) -> Any:
    if output_type == "jax":
        return images
    host = np.asarray(images)
    return host if output_type == "np" else to_pil(host)
