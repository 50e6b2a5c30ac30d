"""A UNet and its weights, from a folder or the hub and back into a folder.

The folder is diffusers': `config.json` beside `diffusion_pytorch_model.safetensors`.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding

import weights_convert
from ddpm_jax.hub import hub
from ddpm_jax.hub.config import read_json, write_json

if TYPE_CHECKING:
    from ddpm_jax.models.unet_2d.model import UNet2DModel

CONFIG_NAME = "config.json"
ParamPath = tuple[str, ...]
Placement = Sharding | Callable[[ParamPath, tuple[int, ...]], Sharding] | None
"""Where params go: one sharding, or one for each path and shape; None: the default device."""


def read(
    model: "UNet2DModel", folder: Path, variant: str | None, sharding: Placement
) -> dict[str, Any]:
    """The params in a component's folder, in the model's `param_dtype`, one tensor read at a time.

    Raises:
        ValueError: tensors are missing, unexpected or misshapen (all are listed), or `sharding` is
            none.
        FileNotFoundError: there are no weights of this variant.
    """
    if not (sharding is None or callable(sharding) or isinstance(sharding, Sharding | jax.Device)):
        raise ValueError(
            f"sharding must be a jax.sharding.Sharding, or a function of path and shape that "
            f"returns one; got {sharding!r}"
        )
    dtype = jnp.dtype(model.param_dtype)

    def put(path: ParamPath, array: np.ndarray) -> jax.Array:
        target = sharding(path, array.shape) if callable(sharding) else sharding
        return jax.device_put(array.astype(dtype, copy=False), target)

    weights = _find(folder, variant)
    with weights_convert.open_weights(weights) as tensors:
        try:
            return weights_convert.to_flax(tensors, model.shapes(), put=put)
        except ValueError as error:
            raise ValueError(f"{weights} does not fit its {CONFIG_NAME}: {error}") from None


def _find(folder: Path, variant: str | None) -> Path:
    try:
        return weights_convert.find_weights(folder, variant)
    except FileNotFoundError as error:
        hint = hub.other_variants(entry.name for entry in folder.iterdir())
        raise FileNotFoundError(f"{error}{hint}") from None


def read_config(folder: Path) -> dict[str, Any]:
    """The config in a component's folder.

    Raises:
        ValueError: it is missing, no JSON object, or that of another class than UNet2DModel.
    """
    config = read_json(folder / CONFIG_NAME)
    kind = config.get("_class_name", "UNet2DModel")
    if kind not in ("UNet2DModel", "UNetUnconditionalModel"):  # the latter: before diffusers 0.3
        raise ValueError(f"{folder / CONFIG_NAME} is the config of a {kind}, not of a UNet2DModel")
    return config


def write(
    model: "UNet2DModel",
    folder: str | os.PathLike[str],
    params: dict[str, Any],
    variant: str | None,
) -> None:
    """Writes the weights, then the config, into a folder, which is made if it is missing.

    Raises:
        ValueError: the params are not those of the model (all faults are listed).
    """
    found = list(_differences(params, model.shapes()))
    if found:
        raise ValueError("these are not the params of this model: " + "; ".join(found))
    weights_convert.save_torch(Path(folder), params, variant=variant)
    write_json(Path(folder) / CONFIG_NAME, {"_class_name": "UNet2DModel", **model.config})


def _differences(params: Any, expected: Any) -> list[str]:
    ours, theirs = _leaf_shapes(params), _leaf_shapes(expected)
    return [
        f"{path}: expected {theirs.get(path, 'nothing')}, got {ours.get(path, 'nothing')}"
        for path in sorted(ours.keys() | theirs.keys())
        if ours.get(path) != theirs.get(path)
    ]


def _leaf_shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path): tuple(np.shape(leaf)) for path, leaf in leaves}
