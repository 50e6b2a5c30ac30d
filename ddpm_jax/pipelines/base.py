"""The base of all pipelines: components that are loaded, stored and saved together.

A pipeline is a thin, mutable object for interactive use. The functions that it calls are pure. A
subclass declares its components and its call.
"""

import inspect
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar, Unpack

import jax.numpy as jnp

from ddpm_jax.hub import class_names, hub, pipeline_folder
from ddpm_jax.hub.component import ComponentFiles
from ddpm_jax.hub.config import check_family
from ddpm_jax.hub.files import faults_of
from ddpm_jax.models import Model
from ddpm_jax.models.pretrained import Placement
from ddpm_jax.pipelines.inputs import kind_of
from ddpm_jax.schedulers import SCHEDULERS, Scheduler

PipelineT = TypeVar("PipelineT", bound="DiffusionPipeline")


class DiffusionPipeline(ABC):
    """Base of the pipelines. `DiffusionPipeline.from_pretrained` returns the pipeline class that
    the folder names.

    Any scheduler works in any pipeline: assign it to `pipe.scheduler`. The constructor converts its
    scheduler to the pipeline's own scheduler class, as in diffusers.

    Args:
        models: the networks, by component name.
        params: their params, plain nested dicts, by component name.
        scheduler: any scheduler.

    Raises:
        ValueError: a component is not of the declared class.
    """

    model_classes: ClassVar[tuple[type[Model], ...]]
    """The classes of its networks."""
    scheduler_class: ClassVar[type[Scheduler] | None] = None
    """The class that the constructor converts a scheduler to; None: no conversion."""

    def __init__(
        self, models: Mapping[str, Model], params: Mapping[str, Any], scheduler: Scheduler
    ):
        for kind in self.model_classes:
            name = kind.files.folder
            if not isinstance(models[name], kind):
                raise ValueError(f"{name} must be a {kind.__name__}, got {kind_of(models[name])}")
            if not isinstance(params[name], Mapping):
                raise ValueError(
                    f"params must be a nested dict of arrays, got {kind_of(params[name])}"
                )
            self._check_network(models[name])
        self._models, self._params = dict(models), dict(params)
        self.class_names: dict[int, str] = {}
        self.scheduler = scheduler
        own = self.scheduler_class
        if own is not None and not isinstance(scheduler, own):
            self.scheduler = own.from_config(scheduler.config)

    @classmethod
    @abstractmethod
    def _assembled(
        cls: type[PipelineT],
        models: Mapping[str, Any],
        params: Mapping[str, Any],
        scheduler: Scheduler,
    ) -> PipelineT:
        """A pipeline of this class, from components by name."""

    @classmethod
    @abstractmethod
    def _check_network(cls, model: Model) -> None:
        """Raises ValueError if this pipeline cannot sample a network, whatever its params are."""

    @property
    @abstractmethod
    def components(self) -> dict[str, Any]:
        """The components, by the constructor's argument names."""

    @property
    def scheduler(self) -> Scheduler:
        """The scheduler. Any other scheduler may be assigned."""
        return self._scheduler

    @scheduler.setter
    def scheduler(self, scheduler: Scheduler) -> None:
        if not isinstance(scheduler, Scheduler):
            raise ValueError(f"scheduler must be a ddpm_jax scheduler, got {kind_of(scheduler)}")
        self._scheduler = scheduler

    @classmethod
    def from_pipe(cls: type[PipelineT], pipe: "DiffusionPipeline", **components: Any) -> PipelineT:
        """A pipeline of this class from another's components. Arguments replace components."""
        given = {name: one for name, one in components.items() if one is not None}
        made = cls(**(pipe.components | given))
        made.class_names = dict(pipe.class_names)
        return made

    @classmethod
    def from_pretrained(
        cls,
        name: hub.Name,
        *,
        scheduler: Scheduler | None = None,
        dtype: Any = jnp.float32,
        param_dtype: Any = jnp.float32,
        sharding: Placement = None,
        **options: Unpack[hub.HubOptions],
    ) -> "DiffusionPipeline":
        """Loads a pipeline of this class. `DiffusionPipeline` loads the class that the folder
        names.

        Args:
            name: a local folder (no network access), a bundled name ("digits", "emoji"), or a hub
                id.
            scheduler: replaces the folder's scheduler, which is then not read.
            dtype: dtype of the network's computation.
            param_dtype: dtype of the params.
            sharding: placement of the params, see `UNet2DModel.from_pretrained`. Default: the
                default device.
            **options: revision, variant, cache_dir, token, local_files_only; see `HubOptions`.

        Raises:
            TypeError: an unknown option.
            ValueError: the folder does not exist; the pipeline, scheduler or network has an
                unsupported class; or the weights do not match the config.
            OSError: the folder has no weights, or the files cannot be fetched from the hub.
        """
        index = pipeline_folder.read(hub.pipeline(name, (), **options))  # before any weights
        named = supported_class(index)
        kind = named if inspect.isabstract(cls) else cls
        networks = [one.files for one in kind.model_classes]
        pipeline_folder.check(index, [*networks, Scheduler.files])
        wanted = networks if scheduler is not None else [*networks, Scheduler.files]
        folder = hub.pipeline(name, wanted, **options)
        scheduler = kind._read_scheduler(folder, index) if scheduler is None else scheduler
        models: dict[str, Model] = {}
        paths = {one.files.folder: hub.component(folder, one.files) for one in kind.model_classes}
        for one in kind.model_classes:
            part, path = one.files.folder, paths[one.files.folder]
            models[part] = one.read_model(path, dtype, param_dtype)
            with faults_of(path / one.files.config):
                kind._check_network(models[part])
        variant = options.get("variant")
        params = {
            part: model.read_params(paths[part], variant, sharding)
            for part, model in models.items()
        }
        pipe = kind._assembled(models, params, scheduler)
        pipe.class_names = class_names.read(folder)
        return pipe

    @classmethod
    def _read_scheduler(cls, folder: Path, index: pipeline_folder.ModelIndex) -> Scheduler:
        """The folder's scheduler, read as `scheduler_class` if the pipeline has one."""
        files: ComponentFiles = Scheduler.files
        kind = cls.scheduler_class or pipeline_folder.named_class(index, files, SCHEDULERS)
        with faults_of(index.path):
            check_family(index.components.get(files.folder), kind.__name__)
        with faults_of(hub.component(folder, files) / files.config):
            return kind.from_pretrained(folder)

    def save_pretrained(self, path: str | os.PathLike[str], *, variant: str | None = None) -> None:
        """Writes a folder that diffusers can load: model_index.json and a folder for each
        component.

        It is written next to `path` and moved there when it is complete. If `path` exists, files
        with the same names are overwritten and others stay.

        Raises:
            ValueError: `path` is a file, or has weights that would be read instead of these; or
                `variant` cannot be part of a file name.
        """
        parts = [self.scheduler, *self._models.values()]
        files = [part.files for part in parts]
        with pipeline_folder.replacing_files(path, files, variant) as folder:
            for name, model in self._models.items():
                model.save_pretrained(folder / name, self._params[name], variant=variant)
            self.scheduler.save_pretrained(folder / self.scheduler.files.folder)
            names = {part.files.folder: type(part).__name__ for part in parts}
            if self.class_names:
                class_names.write(folder, self.class_names)
            pipeline_folder.write(folder, type(self).__name__, names)


def supported_class(index: pipeline_folder.ModelIndex) -> type[DiffusionPipeline]:
    """The pipeline class that an index names.

    Raises:
        ValueError: it is not supported. Its networks may mean something else, such as latents or
            another forward process, so that no other pipeline can take its place.
    """
    kinds = {kind.__name__: kind for kind in _concrete(DiffusionPipeline)}
    if index.pipeline not in kinds:
        raise ValueError(
            f"{index.path.parent} is a {index.pipeline}, which is not supported; supported "
            f"pipelines: {', '.join(sorted(kinds))}"
        )
    return kinds[index.pipeline]


def _concrete(base: type[DiffusionPipeline]) -> Iterator[type[DiffusionPipeline]]:
    for kind in base.__subclasses__():
        if not inspect.isabstract(kind):
            yield kind
        yield from _concrete(kind)
