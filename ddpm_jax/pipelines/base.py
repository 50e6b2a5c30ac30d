"""What all pipelines share: a model, its params and a scheduler, loaded, run and saved together.

A pipeline is a thin, mutable shell for people. Everything under it is pure.
"""

import inspect
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar, Unpack, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.typing import ArrayLike
from jaxtyping import Array, Float
from PIL.Image import Image

from ddpm_jax._typing import AnyArray, Registers
from ddpm_jax.hub import hub, pipeline_folder
from ddpm_jax.hub.files import faults_of
from ddpm_jax.images import to_pil
from ddpm_jax.models import UNet2DModel
from ddpm_jax.models.pretrained import Placement
from ddpm_jax.pipelines.inputs import Labels, check_pil, count_of, kind_of, make_batch
from ddpm_jax.sampling import segments
from ddpm_jax.schedulers import SCHEDULERS, Scheduler
from ddpm_jax.tables.table import Table

PipelineT = TypeVar("PipelineT", bound="DiffusionPipeline")
OutputType = Literal["pil", "np", "jax"]

Callback = Callable[[int, Float[np.ndarray, "b h w c"]], None]
"""Called with the number of network evaluations so far, and the images predicted there."""


class ImagePipelineOutput(NamedTuple):
    """What a pipeline returns.

    Attributes:
        images: PIL images, or a float32 array (B, H, W, C) in [0, 1]: NumPy's for
            `output_type="np"`, jax's for "jax".
    """

    images: list[Image] | Float[np.ndarray, "b h w c"] | Float[Array, "b h w c"]


class DiffusionPipeline(ABC):
    """Base of the pipelines; `DiffusionPipeline.from_pretrained` makes the one that a folder names.

    Any scheduler works in any pipeline: assign to `pipe.scheduler`. What the constructor gets is
    converted to the pipeline's own kind, as in diffusers.

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

    scheduler_class: ClassVar[type[Scheduler] | None] = None
    """What a scheduler is converted to at construction; None: it stays as it is."""

    def __init__(self, *, unet: UNet2DModel, params: Any, scheduler: Scheduler):
        if not isinstance(unet, UNet2DModel):
            raise ValueError(f"unet must be a UNet2DModel, got {kind_of(unet)}")
        if not isinstance(params, Mapping):
            raise ValueError(f"params must be a nested dict of arrays, got {kind_of(params)}")
        self.unet = unet
        self.params: Any = params
        self.scheduler = scheduler
        own = self.scheduler_class
        if own is not None and not isinstance(scheduler, own):
            self.scheduler = own.from_config(scheduler.config)

    def __repr__(self) -> str:
        count = sum(int(np.prod(np.shape(leaf))) for leaf in jax.tree.leaves(self.params))
        size, channels = self.unet.config.sample_size, self.unet.config.in_channels
        unet = f"<UNet2DModel, sample_size={size}, in_channels={channels}, {count:,} params>"
        return f"{type(self).__name__}(unet={unet}, scheduler=<{type(self.scheduler).__name__}>)"

    @property
    def scheduler(self) -> Scheduler:
        """The scheduler, which may be replaced by any other."""
        return self._scheduler

    @scheduler.setter
    def scheduler(self, scheduler: Scheduler) -> None:
        if not isinstance(scheduler, Scheduler):
            raise ValueError(f"scheduler must be one of ddpm_jax's, got {kind_of(scheduler)}")
        self._scheduler = scheduler

    @property
    def components(self) -> dict[str, Any]:
        """What the pipeline is made of, by the constructor's names."""
        return {"unet": self.unet, "params": self.params, "scheduler": self.scheduler}

    @abstractmethod
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
        """Makes images; see `DDPMPipeline`. The pipelines differ in their defaults."""

    @classmethod
    def from_pretrained(
        cls,
        name: str | os.PathLike[str],
        *,
        scheduler: Scheduler | None = None,
        dtype: Any = jnp.float32,
        param_dtype: Any = jnp.float32,
        sharding: Placement = None,
        **options: Unpack[hub.HubOptions],
    ) -> "DiffusionPipeline":
        """Loads a pipeline: of the class it is called on, or for `DiffusionPipeline` of the class
        that the folder names.

        Args:
            name: a local folder (the network is not touched), a bundled name ("digits", "emoji"),
                or a hub id.
            scheduler: takes the place of the folder's, which is then not read.
            dtype: of the network's computation.
            param_dtype: of the params.
            sharding: where the params go, see `UNet2DModel.from_pretrained`; default: the default
                device.
            **options: revision, variant, cache_dir, token, local_files_only; see
                `HubOptions`.

        Raises:
            TypeError: an unknown option.
            ValueError: no such folder, a pipeline, scheduler or network of another kind, or weights
                that do not fit the config.
            OSError: the hub does not give the files; see `ddpm_jax.hub.download`.
        """
        components = [UNet2DModel.files, Scheduler.files]
        wanted = components if scheduler is None else components[:1]
        folder = hub.pipeline(name, wanted, **options)
        index = pipeline_folder.read(folder)
        kind = cls._named(index.pipeline) if cls is DiffusionPipeline else cls
        pipeline_folder.check(index, components)
        scheduler = kind._read_scheduler(folder, index) if scheduler is None else scheduler
        unet, params = UNet2DModel.from_pretrained(
            folder,
            variant=options.get("variant"),
            dtype=dtype,
            param_dtype=param_dtype,
            sharding=sharding,
        )
        return kind(unet=unet, params=params, scheduler=scheduler)

    @classmethod
    def from_pipe(
        cls: type[PipelineT],
        pipe: "DiffusionPipeline",
        *,
        unet: UNet2DModel | None = None,
        params: Any = None,
        scheduler: Scheduler | None = None,
    ) -> PipelineT:
        """A pipeline of this class from another's components; what is given replaces one."""
        return cls(
            unet=pipe.unet if unet is None else unet,
            params=pipe.params if params is None else params,
            scheduler=pipe.scheduler if scheduler is None else scheduler,
        )

    def save_pretrained(self, path: str | os.PathLike[str], *, variant: str | None = None) -> None:
        """Writes a folder that diffusers loads: model_index.json, unet/ and scheduler/.

        It is written beside `path` and moved there when it is complete. In a folder that exists,
        files of the same names are replaced and others stay.

        Raises:
            ValueError: `path` is a file, or holds weights that would be read in place of these; or
                `variant` cannot be part of a file's name.
        """
        parts = {part.files: part for part in (self.scheduler, self.unet)}
        names = {files.folder: type(part).__name__ for files, part in parts.items()}
        with pipeline_folder.replacing_files(path, parts, variant) as folder:
            self.unet.save_pretrained(folder / self.unet.files.folder, self.params, variant=variant)
            self.scheduler.save_pretrained(folder / self.scheduler.files.folder)
            pipeline_folder.write(folder, type(self).__name__, names)

    @classmethod
    def _named(cls, name: str) -> type["DiffusionPipeline"]:
        kinds = {kind.__name__: kind for kind in cls.__subclasses__()}
        if name not in kinds:
            raise ValueError(f"this is a {name}; accepted pipelines are {', '.join(sorted(kinds))}")
        return kinds[name]

    @classmethod
    def _read_scheduler(cls, folder: Path, index: pipeline_folder.ModelIndex) -> Scheduler:
        """The folder's scheduler, read as the pipeline's own kind where it has one."""
        kind = cls.scheduler_class or pipeline_folder.named_class(
            index, Scheduler.files, SCHEDULERS
        )
        path = hub.component(folder, kind.files) / kind.files.config
        with faults_of(path):
            return kind.from_pretrained(folder)

    def _table(self, num_inference_steps: int, **options: Any) -> Table:
        """The scheduler's table; an option at its neutral value is not passed on."""
        wanted = {name: value for name, value in options.items() if value}
        accepted = inspect.signature(self.scheduler.table).parameters
        refused = sorted(set(wanted) - set(accepted))
        if refused:
            raise ValueError(
                f"{type(self.scheduler).__name__} takes no {' or '.join(refused)}: "
                f"leave out {' and '.join(f'{name}={wanted[name]}' for name in refused)}"
            )
        return self.scheduler.table(num_inference_steps, **wanted)

    def _generate(
        self,
        key: ArrayLike,
        table: Table,
        *,
        batch_size: int | None,
        class_labels: Labels | None,
        x_T: Any,
        output_type: OutputType,
        return_dict: bool,
        sharding: NamedSharding | None,
        progress: bool,
        callback: Callback | None,
        callback_every: int,
    ) -> ImagePipelineOutput | tuple[Any]:
        """Runs a table for the arguments of a pipeline's call."""
        from tqdm.auto import tqdm

        if output_type not in get_args(OutputType):
            raise ValueError(f'output_type must be "pil", "np" or "jax", got {output_type!r}')
        if output_type == "pil":
            check_pil(self.unet)
        callback_every = count_of("callback_every", callback_every)
        batch = make_batch(
            self.unet, self.params, table, key, batch_size, class_labels, x_T, sharding
        )
        every = None if callback is None else callback_every
        run = segments.run(
            segments.Network(self.unet),
            batch.params,
            table if callback is None else segments.with_preview(table),
            batch.x_T,
            batch.keys,
            every=every,
            place=batch.place,
        )
        registers: Registers = (batch.x_T,)
        with tqdm(total=len(table), disable=not progress) as bar:
            for done, registers in run:
                bar.update(done - bar.n)
                if callback is not None and (done % callback_every == 0 or done == len(table)):
                    callback(done, np.asarray(_unit(registers[-1][: batch.count])))
        images = _as(output_type, _unit(registers[0][: batch.count]))
        return ImagePipelineOutput(images) if return_dict else (images,)


@jax.jit
def _unit(x: Float[AnyArray, "b h w c"]) -> Float[Array, "b h w c"]:
    """From the network's [-1, 1] to [0, 1]."""
    return jnp.clip(x / 2 + 0.5, 0, 1)


def _as(output_type: OutputType, images: Float[Array, "b h w c"]) -> Any:
    if output_type == "jax":
        return images
    host = np.asarray(images)
    return host if output_type == "np" else to_pil(host)
