"""The base of all networks: a config in diffusers' form, params, and the files of both.

A subclass declares its fields with diffusers' names and defaults, its `files`, and the faults that
a config can have. `from_config`, `from_pretrained`, `save_pretrained` and the rest use these.
"""

import dataclasses
import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import Sharding
from jax.typing import DTypeLike
from jaxtyping import Array, Key, UInt32

import weights_convert
from ddpm_jax.hub import hub
from ddpm_jax.hub.component import ComponentFiles
from ddpm_jax.hub.config import Config
from ddpm_jax.hub.files import faults_of, listed, read_json, write_json
from ddpm_jax.models.layers import initial
from ddpm_jax.models.layers.config import LayerConfig

ModelT = TypeVar("ModelT", bound="Model")
ParamPath = tuple[str, ...]
Placement = Sharding | Callable[[ParamPath, tuple[int, ...]], Sharding] | None
"""Placement of params: one sharding, or one for each path and shape; None: the default device."""

# Fields of diffusers' other networks that change what is computed and add no parameters: a missing
# or unexpected parameter is found with the weights, these are not.
COMPUTING = frozenset(
    {
        "attention_type", "class_embeddings_concat", "cross_attention_norm", "dual_cross_attention",
        "encoder_hid_dim_type", "mid_block_only_cross_attention", "num_attention_heads",
        "only_cross_attention", "resnet_out_scale_factor", "resnet_skip_time_act",
        "reverse_transformer_layers_per_block", "time_embedding_act_fn", "timestep_post_act",
    }
)  # fmt: skip


class Model(nn.Module):
    """Base of the networks.

    The fields of a subclass are those of diffusers' config, with its defaults. No config file has
    `runtime_fields`.

    Raises:
        ValueError: at construction; lists every fault of the config.
    """

    dtype: Any = jnp.float32
    """Dtype between the first and the last layer: float32, bfloat16 or float16."""
    param_dtype: Any = jnp.float32
    """Dtype of the params that `init` and `init_params` create."""

    files: ClassVar[ComponentFiles]
    """The names of the component's folder, config and weights."""
    runtime_fields: ClassVar[tuple[str, ...]] = ("dtype", "param_dtype")
    """The fields that diffusers' config does not have."""
    renamed_fields: ClassVar[Mapping[str, str]] = {}
    """Old names of fields in config files, and the current names."""
    fixed_fields: ClassVar[Mapping[str, Any]] = {}
    """Fields of diffusers' config that have no other value here."""
    converted_classes: ClassVar[tuple[str, ...]] = ()
    """Classes of older folders, which `ddpm-jax convert` makes into such a model."""

    def __post_init__(self) -> None:
        fields = {
            name: getattr(self, name) for name in (*self._config_fields(), *self.runtime_fields)
        }
        for name, value in fields.items():
            if isinstance(value, list):
                fields[name] = tuple(value)
                object.__setattr__(self, name, fields[name])
        found = list(self._faults(fields))
        if found:
            lines = "\n".join(f"- {fault}" for fault in found)
            raise ValueError(f"{type(self).__name__} cannot be built:\n{lines}")
        super().__post_init__()

    @classmethod
    def _faults(cls, fields: Mapping[str, Any]) -> Iterable[str]:
        """Every fault of a config and of the runtime fields, each as a sentence."""
        raise NotImplementedError

    @nn.nowrap
    def _example_inputs(self) -> tuple[Any, ...]:
        """The smallest arguments of `__call__`, for the shapes of the params."""
        raise NotImplementedError

    @nn.nowrap
    def _check_bound(self, denoise: str, apply: str) -> None:
        """TypeError if the model is called as a function, with the arguments of both methods."""
        if self.scope is None:
            raise TypeError(
                f"a model has no params: write model.denoise(params, {denoise}), or "
                f'model.apply({{"params": params}}, {apply})'
            )

    @nn.nowrap
    def _layer_config(self, **choices: Any) -> LayerConfig:
        """What all layers share: the model's dtypes, and choices of `LayerConfig`."""
        dtype, param_dtype = jnp.dtype(self.dtype), jnp.dtype(self.param_dtype)
        return LayerConfig(dtype=dtype, param_dtype=param_dtype, **choices)

    @classmethod
    def _config_fields(cls) -> tuple[str, ...]:
        """The fields that diffusers' config has, in its order."""
        others = (*cls.runtime_fields, "parent", "name")
        return tuple(field.name for field in dataclasses.fields(cls) if field.name not in others)

    @property
    def config(self) -> Config:
        """Every field of diffusers' config."""
        fields = {name: getattr(self, name) for name in self._config_fields()}
        return Config(fields, class_name=type(self).__name__)

    @classmethod
    def from_config(cls: type[ModelT], config: Mapping[str, Any], **overrides: Any) -> ModelT:
        """The model of a diffusers config; overrides are fields, the runtime fields among them.

        Raises:
            ValueError: a faulty config, or a field of another network that changes what is
                computed. Other unknown keys are ignored with a warning; keys with a leading
                underscore without one.
        """
        given = {key: value for key, value in config.items() if not key.startswith("_")}
        old, fixed = cls.renamed_fields, cls.fixed_fields
        others = [
            f"{name}={given[name]!r} ({value!r} is)"
            for name, value in fixed.items()
            if given.get(name, value) != value
        ]
        if others:
            raise ValueError(f"{cls.__name__}: not supported: {listed(others)}")
        given = {name: value for name, value in given.items() if name not in fixed}
        unknown = sorted(set(given) - set(cls._config_fields()) - set(old))
        foreign = [f"{name}={given[name]!r}" for name in unknown if _changes(name, given[name])]
        if foreign:
            raise ValueError(
                f"{cls.__name__} has no {listed(foreign)}, which makes it another network"
            )
        if unknown:
            warnings.warn(f"{cls.__name__} has no field {listed(unknown)}: ignored", stacklevel=2)
            given = {name: value for name, value in given.items() if name not in unknown}
        twice = sorted(f"{name} and {old[name]}" for name in old if {name, old[name]} <= set(given))
        if twice:
            raise ValueError(
                f"config keys with the same meaning are both given: {'; '.join(twice)}"
            )
        return cls(**({old.get(key, key): value for key, value in given.items()} | overrides))

    @classmethod
    def read_config(cls, folder: Path) -> dict[str, Any]:
        """The config in a component's folder.

        Raises:
            ValueError: it is missing, is not a JSON object, or belongs to another class.
        """
        path = folder / cls.files.config
        config = read_json(path)
        found = cls._named_class(config)
        if found not in cls.files.classes:
            hint = ": ddpm-jax convert makes one of it" if found in cls.converted_classes else ""
            raise ValueError(f"{path} is the config of a {found}, not of a {cls.__name__}{hint}")
        return config

    @classmethod
    def from_pretrained(
        cls: type[ModelT],
        path: hub.Name,
        *,
        subfolder: str | None = None,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        sharding: Placement = None,
        **options: Unpack[hub.HubOptions],
    ) -> tuple[ModelT, dict[str, Any]]:
        """A model and its params from a local folder, a hub id or a bundled name.

        Args:
            path: a pipeline's folder, the component's own, or a flat repository.
            subfolder: look only there.
            dtype: dtype of the computation.
            param_dtype: dtype of the params, independent of the stored dtype.
            sharding: placement of the params: one sharding, or a function of path and shape; None:
                the default device.
            **options: revision, variant, cache_dir, token, local_files_only; see
                `HubOptions`.

        Raises:
            TypeError: an unknown option.
            ValueError: the model does not exist, or its config is faulty or does not match the
                weights.
            OSError: it has no weights, is not on the hub, or access is denied.
        """
        folder = hub.component(path, cls.files, subfolder=subfolder, **options)
        model = cls.read_model(folder, dtype, param_dtype)
        return model, model.read_params(folder, options.get("variant"), sharding)

    @classmethod
    def read_model(
        cls: type[ModelT],
        folder: Path,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
    ) -> ModelT:
        """The model of the config in a component's folder, without its params.

        Raises:
            ValueError: as `read_config` and `from_config`; the message names the file.
        """
        config = cls.read_config(folder)
        with faults_of(folder / cls.files.config):
            model = cls.from_config(config)
        return model.clone(dtype=dtype, param_dtype=param_dtype)

    @nn.nowrap
    def read_params(
        self, folder: Path, variant: str | None = None, sharding: Placement = None
    ) -> dict[str, Any]:
        """The params in a component's folder. One tensor is read at a time.

        Args:
            folder: with the weights.
            variant: which weights.
            sharding: as in `from_pretrained`.

        Raises:
            ValueError: they do not match the model.
            OSError: there are none.
        """
        weights = self._find_weights(folder, variant)
        with weights_convert.open_weights(weights) as tensors:
            return self.take_params(tensors, f"{weights}", sharding)

    @nn.nowrap
    def take_params(
        self, tensors: Mapping[str, Any], source: str, sharding: Placement = None
    ) -> dict[str, Any]:
        """The params from tensors under torch's names. One tensor is read at a time.

        Args:
            tensors: such as an open checkpoint.
            source: where they are from, for messages.
            sharding: as in `from_pretrained`.

        Raises:
            ValueError: they do not match the model.
        """
        if not (
            sharding is None or callable(sharding) or isinstance(sharding, Sharding | jax.Device)
        ):
            raise ValueError(
                f"sharding must be a jax.sharding.Sharding, or a function of path and shape that "
                f"returns one; got {sharding!r}"
            )
        dtype = jnp.dtype(self.param_dtype)

        def put(path: ParamPath, array: np.ndarray) -> jax.Array:
            target = sharding(path, array.shape) if callable(sharding) else sharding
            return jax.device_put(array.astype(dtype, copy=False), target)

        try:
            return weights_convert.to_flax(tensors, self.shapes(), put=put, rename=self._param_name)
        except ValueError as error:
            raise ValueError(f"{source} does not match its {self.files.config}: {error}") from None

    @classmethod
    def _param_name(cls, name: str) -> str | None:
        """A tensor's name here, from that in a file; None for one that is not of this network."""
        return name

    @classmethod
    def _find_weights(cls, folder: Path, variant: str | None) -> Path:
        assert cls.files.weights is not None
        try:
            return weights_convert.find_weights(folder, variant, cls.files.weights)
        except FileNotFoundError as error:
            hint = hub.other_variants(entry.name for entry in folder.iterdir())
            raise FileNotFoundError(f"{error}{hint}") from None

    @nn.nowrap
    def save_pretrained(
        self,
        path: str | os.PathLike[str],
        params: dict[str, Any],
        *,
        variant: str | None = None,
    ) -> None:
        """Writes the weights, then the config, into a folder that diffusers can load.

        The folder is created if it is missing.

        Raises:
            ValueError: the params are not those of this model (all faults are listed).
        """
        assert self.files.weights is not None
        if found := differences(params, self.shapes()):
            raise ValueError("these are not the params of this model: " + listed(found, "; "))
        weights_convert.save_torch(Path(path), params, variant=variant, stem=self.files.weights)
        write_json(Path(path) / self.files.config, {**self._class_entry(), **self.config})

    @classmethod
    def _named_class(cls, config: Mapping[str, Any]) -> Any:
        """The class that a config file names; this one if it names none."""
        found = config.get("_class_name", cls.__name__)
        return found[-1] if isinstance(found, list) and found else found  # [file, class] if custom

    @classmethod
    def _class_entry(cls) -> dict[str, Any]:
        """How a config file names the class."""
        return {"_class_name": cls.__name__}

    @nn.nowrap
    def shapes(self) -> dict[str, Any]:
        """The params tree with shapes and dtypes as leaves. Nothing is allocated."""
        return jax.tree.map(lambda leaf: leaf, _shapes(self))  # pyright: ignore[reportArgumentType]

    @nn.nowrap
    def init_params(self, key: Key[Array, ""] | UInt32[Array, "2"]) -> dict[str, Any]:
        """New params with torch's initial distributions, drawn without running the network.

        Compiles one draw. `init` would compile one for every parameter.
        """
        return initial.draw(key, self.shapes())


@lru_cache(maxsize=32)
def _shapes(model: Model) -> dict[str, Any]:
    """Traced once a model: loading asks for the shapes several times. Callers copy the dicts."""

    def init(key: Array) -> dict[str, Any]:
        return dict(model.init(key, *model._example_inputs())["params"])

    return jax.eval_shape(init, jax.random.key(0))


def _changes(name: str, value: Any) -> bool:
    """Whether a field that a network lacks, with this value, changes what is computed."""
    unused = value is not True and value in (None, False, 1, "default")
    return name in COMPUTING and not unused


def differences(params: Any, expected: Any) -> list[str]:
    """A sentence for each leaf, by its name, that is missing, unexpected or of another shape."""
    ours, theirs = _leaf_shapes(params), _leaf_shapes(expected)
    return [
        f"{name} is {ours.get(name, 'missing')}, expected {theirs.get(name, 'none')}"
        for name in sorted(ours.keys() | theirs.keys())
        if ours.get(name) != theirs.get(name)
    ]


def _leaf_shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    named = partial(jax.tree_util.keystr, simple=True, separator=".")
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {named(path): tuple(np.shape(leaf)) for path, leaf in leaves}
