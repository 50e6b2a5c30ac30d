"""The base of all pipelines: components that are loaded, stored and saved together.

A pipeline is a thin, mutable object for interactive use. The functions that it calls are pure. A
subclass declares its components as attributes, and its call.
"""

import inspect
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar, Unpack, overload

import jax.numpy as jnp

from ddpm_jax.hub import class_names, hub, pipeline_folder
from ddpm_jax.hub.component import ComponentFiles
from ddpm_jax.hub.config import check_family
from ddpm_jax.hub.files import faults_of, listed
from ddpm_jax.models import Model
from ddpm_jax.models.pretrained import Placement
from ddpm_jax.pipelines.inputs import kind_of
from ddpm_jax.schedulers import SCHEDULERS, Scheduler
from ddpm_jax.text.tokenizer import CLIPTokenizer

T = TypeVar("T")
PipelineT = TypeVar("PipelineT", bound="DiffusionPipeline")


class Component(Generic[T]):
    """An attribute of a pipeline that holds a component. Assignment checks its class.

    Args:
        kind: the class of the component, with `files`.
        optional: whether it may be None, and missing in a folder.
    """

    def __init__(self, kind: type[T], *, optional: bool = False):
        self.kind, self.optional = kind, optional
        self.files: ComponentFiles = kind.files  # pyright: ignore[reportAttributeAccessIssue]

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, pipe: None, owner: type) -> "Component[T]": ...
    @overload
    def __get__(self, pipe: "DiffusionPipeline", owner: type) -> T: ...
    def __get__(self, pipe: "DiffusionPipeline | None", owner: type) -> "Component[T] | T":
        if pipe is None:
            return self
        value: Any = pipe.parts[self.name]
        return value

    def __set__(self, pipe: "DiffusionPipeline", value: T) -> None:
        self.check(value)
        changed = {**pipe.parts, self.name: value}
        pipe.check(changed)
        pipe.parts = changed

    def check(self, value: Any) -> None:
        """Raises ValueError unless a value can be this component."""
        if value is None and self.optional:
            return
        if not isinstance(value, self.kind):
            what = "ddpm_jax scheduler" if self.kind is Scheduler else self.kind.__name__
            raise ValueError(f"{self.name} must be a {what}, got {kind_of(value)}")

    @property
    def is_model(self) -> bool:
        """Whether it has params."""
        return issubclass(self.kind, Model)


class LoadOptions(hub.HubOptions, total=False):
    """Options of `from_pretrained`: those of the hub, and components that replace the folder's.

    A network is given with its params, as its `from_pretrained` returns it.
    """

    scheduler: Scheduler | None
    """Replaces the folder's scheduler, which is then not read."""
    tokenizer: Any
    """A `CLIPTokenizer`, or the name of a folder that has one."""
    unet: tuple[Model, Any]
    """(model, params)."""
    vae: tuple[Model, Any]
    """(model, params)."""
    text_encoder: tuple[Model, Any]
    """(model, params)."""
    safety_checker: tuple[Model, Any] | None
    """(model, params); None turns it off."""
    depth_estimator: tuple[Model, Any]
    """(model, params)."""


OF_THE_MODEL = ("revision", "variant")
"""The options of the hub that say which weights of a model are meant."""


def split_options(options: Mapping[str, Any]) -> tuple[dict[str, Any], Any]:
    """The options of `LoadOptions` that are components, and all others: those of the hub."""
    names = LoadOptions.__annotations__.keys() - hub.HubOptions.__annotations__.keys()
    components = {name: value for name, value in options.items() if name in names}
    return components, {name: value for name, value in options.items() if name not in names}


class DiffusionPipeline(ABC):
    """Base of the pipelines. `DiffusionPipeline.from_pretrained` returns the pipeline class that
    the folder names.

    Any scheduler works in any pipeline: assign it to `pipe.scheduler`. The constructor converts its
    scheduler to the pipeline's own scheduler class, as in diffusers.

    Args:
        params: of the networks, plain nested dicts, by component name.
        **parts: the components, by name.

    Raises:
        ValueError: a component is not of the declared class, or two do not fit together.
    """

    scheduler = Component(Scheduler)
    """The scheduler. Any other scheduler may be assigned."""
    scheduler_class: ClassVar[type[Scheduler] | None] = None
    """The class that the constructor converts a scheduler to; None: no conversion."""
    unread: ClassVar[tuple[str, ...]] = ()
    """Components in a folder that are not needed here."""

    def __init__(self, params: Mapping[str, Any], **parts: Any):
        declared = self.declared()
        strange = sorted(name for name in parts if name not in declared and parts[name] is not None)
        if strange:
            raise TypeError(f"a {type(self).__name__} has no {listed(strange)}")
        if not isinstance(params, Mapping):
            raise ValueError(f"params must be dicts by component, got {kind_of(params)}")
        own: dict[str, Any] = {name: parts.get(name) for name in declared}
        for name, component in declared.items():
            component.check(own[name])
            if component.is_model and own[name] is not None:
                given = params.get(name)
                if not isinstance(given, Mapping):
                    raise ValueError(
                        f"params must be a nested dict of arrays, got {kind_of(given)}"
                    )
        self.parts = own | {"scheduler": self.adopted(own["scheduler"])}
        self.check(self.parts)
        self._params = dict(params)
        self.class_names: dict[int, str] = {}

    @classmethod
    def declared(cls) -> dict[str, Component[Any]]:
        """The declared components by name, the scheduler last. A class that sets one to None has
        none.
        """
        values = {
            name: value for base in reversed(cls.__mro__) for name, value in vars(base).items()
        }
        found = {name: value for name, value in values.items() if isinstance(value, Component)}
        return {name: found[name] for name in sorted(found, key=lambda name: name == "scheduler")}

    @classmethod
    def adopted(cls, scheduler: Scheduler) -> Scheduler:
        """A scheduler as the constructor converts it."""
        own = cls.scheduler_class
        if own is None or isinstance(scheduler, own):
            return scheduler
        return own.from_config(scheduler.config)

    @classmethod
    @abstractmethod
    def _assembled(
        cls: type[PipelineT], params: Mapping[str, Any], parts: Mapping[str, Any]
    ) -> PipelineT:
        """A pipeline of this class, from components and params by name."""

    @classmethod
    @abstractmethod
    def check(cls, parts: Mapping[str, Any]) -> None:
        """Raises ValueError if this pipeline cannot sample with these components, whatever the
        params are.
        """

    @classmethod  # noqa: B027  most take any
    def check_source(cls, other: "type[DiffusionPipeline]") -> None:
        """Raises ValueError if networks of another pipeline class mean something else here."""

    @property
    @abstractmethod
    def params(self) -> Any:
        """The params of its networks."""

    @property
    def components(self) -> dict[str, Any]:
        """The components, by the constructor's argument names."""
        return {**self.parts, "params": self.params}

    @classmethod
    def from_pipe(cls: type[PipelineT], pipe: "DiffusionPipeline", **components: Any) -> PipelineT:
        """A pipeline of this class from another's components. Arguments replace components.

        Raises:
            ValueError: the other one lacks a component, or its networks mean something else here;
                or as the constructor.
        """
        cls.check_source(type(pipe))
        declared = cls.declared()
        optional = {name for name, one in declared.items() if one.optional}
        strange = sorted(set(components) - set(declared) - {"params"})
        if strange:
            raise TypeError(f"a {cls.__name__} has no {listed(strange)}")
        given = {k: v for k, v in components.items() if v is not None or k in optional}
        parts: dict[str, Any] = {**dict.fromkeys(optional), **pipe.components, **given}
        missing = sorted(set(declared) - set(parts))
        if missing:
            raise ValueError(
                f"a {cls.__name__} needs {listed(missing)}, which a {type(pipe).__name__} lacks"
            )
        wanted: dict[str, Any] = {name: parts[name] for name in (*declared, "params")}
        made = cls(**wanted)
        made.class_names = dict(pipe.class_names)
        return made

    @classmethod
    def from_pretrained(
        cls,
        name: hub.Name,
        *,
        dtype: Any = jnp.float32,
        param_dtype: Any = jnp.float32,
        sharding: Placement = None,
        **options: Unpack[LoadOptions],
    ) -> "DiffusionPipeline":
        """Loads a pipeline of this class. `DiffusionPipeline` loads the class that the folder
        names.

        Args:
            name: a local folder (no network access), a bundled name ("digits", "avatars"), or a hub
                id.
            dtype: dtype of the networks' computation.
            param_dtype: dtype of the params.
            sharding: placement of the params, see `UNet2DModel.from_pretrained`. Default: the
                default device.
            **options: components that replace the folder's, see `LoadOptions`: scheduler,
                tokenizer, unet, vae, text_encoder, safety_checker, depth_estimator; and of the hub:
                revision, variant, cache_dir, token, local_files_only.

        Raises:
            TypeError: an unknown option.
            ValueError: the folder does not exist or lacks components; the pipeline, scheduler or a
                network has an unsupported class; or weights do not match their config.
            OSError: a network has no weights, or the files cannot be fetched from the hub.
        """
        given, remote = split_options(options)
        index = pipeline_folder.read(hub.pipeline(name, (), **remote))  # before any weights
        named = supported_class(index)
        kind = named if inspect.isabstract(cls) else cls
        with faults_of(index.path):
            kind.check_source(named)
        given, params = kind._given(given, **remote)
        wanted = kind._wanted(index, given)
        folder = hub.pipeline(name, [one.files for one in wanted.values()], **remote)
        parts: dict[str, Any] = dict.fromkeys(kind.declared()) | given
        if "scheduler" in wanted:
            parts["scheduler"] = kind._read_scheduler(folder, index)
        paths = {key: hub.component(folder, one.files) for key, one in wanted.items()}
        for key, one in wanted.items():
            if one.is_model:
                parts[key] = one.kind.read_model(paths[key], dtype, param_dtype)
            elif one.kind is not Scheduler:
                parts[key] = one.kind.read(paths[key])
        with faults_of(paths.get("unet", folder)):
            kind.check(parts)
        networks = {one.files: key for key, one in wanted.items() if one.is_model}
        entries = {
            files: [file.name for file in paths[key].iterdir()] for files, key in networks.items()
        }
        for files, variant in hub.variants(entries, options.get("variant")).items():
            key = networks[files]
            params[key] = parts[key].read_params(paths[key], variant, sharding)
        pipe = kind._assembled(params, parts)
        pipe.class_names = class_names.read(folder)
        return pipe

    @classmethod
    def _given(
        cls, options: Mapping[str, Any], **remote: Unpack[hub.HubOptions]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The given components, and the params of those that are networks."""
        declared = cls.declared()
        unknown = sorted(set(options) - set(declared))
        if unknown:
            raise ValueError(f"a {cls.__name__} has no {listed(unknown)}")
        parts: dict[str, Any] = {}
        params: dict[str, Any] = {}
        for name, value in options.items():
            if value is None and not declared[name].optional:
                continue
            if declared[name].kind is CLIPTokenizer and not isinstance(value, CLIPTokenizer):
                named: Any = value
                # Revision and variant are those of the model.
                own: Any = {k: v for k, v in remote.items() if k not in OF_THE_MODEL}
                value = CLIPTokenizer.from_pretrained(named, **own)
            parts[name] = value
            if declared[name].is_model and value is not None:
                if not (isinstance(value, tuple) and len(value) == 2):
                    kind = declared[name].kind.__name__
                    raise ValueError(
                        f"{name} must be a pair of a model and its params, as "
                        f"{kind}.from_pretrained returns it; got {kind_of(value)}"
                    )
                parts[name], params[name] = value
        return parts, params

    @classmethod
    def _wanted(
        cls, index: pipeline_folder.ModelIndex, given: Mapping[str, Any]
    ) -> dict[str, Component[Any]]:
        """The components to read from a folder. ValueError if it has others, or lacks some."""
        declared = cls.declared()
        pipeline_folder.check(index, [one.files for one in declared.values()], cls.unread)
        present, off = index.components, [name for name, one in given.items() if one is None]
        for name in sorted(set(off) & set(present)):
            warnings.warn(f"{index.path.parent} has a {name}, which is turned off", stacklevel=4)
        missing = [
            name
            for name, one in declared.items()
            if not (one.optional or name in given or name in present or one.kind is Scheduler)
        ]
        if missing:
            raise ValueError(f"{index.path} ({index.pipeline}) has no {listed(missing)}")
        return {
            name: one
            for name, one in declared.items()
            if name not in given and (name in present or not one.optional)
        }

    @classmethod
    def _read_scheduler(cls, folder: Path, index: pipeline_folder.ModelIndex) -> Scheduler:
        """The folder's scheduler, read as `scheduler_class` if the pipeline has one."""
        files: ComponentFiles = Scheduler.files
        kind = cls.scheduler_class or pipeline_folder.named_class(index, files, SCHEDULERS)
        with faults_of(index.path):
            check_family(index.components.get(files.folder), kind.__name__, kind.family)
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
        parts = {name: one for name, one in self.parts.items() if one is not None}
        files = [part.files for part in parts.values()]
        with pipeline_folder.replacing_files(path, files, variant) as folder:
            for name, part in parts.items():
                target = folder / part.files.folder
                if isinstance(part, Model):
                    part.save_pretrained(target, self._params[name], variant=variant)
                else:
                    part.save_pretrained(target)
            if self.class_names:
                class_names.write(folder, self.class_names)
            names = {
                name: (one.files.library, type(parts[name]).__name__) if name in parts else None
                for name, one in self.declared().items()
            }
            pipeline_folder.write(folder, type(self).__name__, names | self._written(folder))

    def _written(self, folder: Path) -> dict[str, Any]:
        """Further entries of the index, whose files this writes into the folder."""
        return {}


def supported_class(index: pipeline_folder.ModelIndex) -> type[DiffusionPipeline]:
    """The pipeline class that an index names.

    Raises:
        ValueError: it is not supported. Its networks may mean something else, such as latents or
            another forward process, so that no other pipeline can take its place.
    """
    kinds = {kind.__name__: kind for kind in concrete(DiffusionPipeline)}
    if index.pipeline not in kinds:
        raise ValueError(
            f"{index.path.parent} is a {index.pipeline}, which is not supported; supported "
            f"pipelines: {', '.join(sorted(kinds))}"
        )
    return kinds[index.pipeline]


def concrete(base: type[PipelineT]) -> Iterator[type[PipelineT]]:
    """All classes below one that are no base themselves."""
    for kind in base.__subclasses__():
        if not inspect.isabstract(kind):
            yield kind
        yield from concrete(kind)
