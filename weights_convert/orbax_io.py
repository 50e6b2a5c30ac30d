"""Orbax checkpoints of a params tree. Each is a folder. orbax, and with it jax, is imported only
when a checkpoint is read or written.

The nested tree is stored unchanged; orbax itself joins the names with dots. The synchronous
checkpointer writes it. It is read as NumPy arrays, for every device that it was saved from.
"""

import importlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from weights_convert.errors import first_line, listed
from weights_convert.rules import flat
from weights_convert.tensors import Array, Checkpoint, Stored

_MARKS = ("_CHECKPOINT_METADATA", "_METADATA")


def is_orbax(folder: Path) -> bool:
    """Whether a folder is a complete orbax checkpoint."""
    return any((folder / mark).is_file() for mark in _MARKS)


def write_orbax(folder: Path, params: Mapping[str, Any]) -> None:
    """Write a params tree into `folder`, which must not exist.

    orbax copies all arrays before it writes the first one.
    """
    ocp: Any = importlib.import_module("orbax.checkpoint")
    with ocp.PyTreeCheckpointer() as checkpointer:
        checkpointer.save(folder.resolve(), params)


def open_orbax(folder: Path) -> Checkpoint:
    """The arrays of a checkpoint, in Flax's names, joined with dots, and Flax's layout.

    orbax restores only whole trees, so the first read loads all arrays, and so does a second read
    of one of them. Each array is released when it is read.

    Raises:
        ValueError: orbax cannot read the folder, or it is not a nested dict of arrays.
    """
    found = _asked(folder, "metadata")
    # Newer orbax versions wrap the tree of array metadata once or twice; old ones do not.
    found = getattr(found, "item_metadata", found)
    tree = getattr(found, "tree", found)
    leaves = _leaves(tree) if isinstance(tree, Mapping) else {}
    odd = [name for name, leaf in leaves.items() if not hasattr(leaf, "shape")]
    if odd or not leaves:
        raise ValueError(f"{folder} is not a nested dict of arrays: {listed(odd) or 'empty'}")
    whole = _Restored(folder, tree)
    stored = {
        name: Stored(tuple(leaf.shape), np.dtype(leaf.dtype), partial(whole.pop, name))
        for name, leaf in leaves.items()
    }
    return Checkpoint(stored, whole.close)


def _asked(folder: Path, method: str, **options: Any) -> Any:
    """What a method of orbax's checkpointer returns for a folder."""
    ocp: Any = importlib.import_module("orbax.checkpoint")
    try:
        with ocp.PyTreeCheckpointer() as checkpointer:
            return getattr(checkpointer, method)(folder.resolve(), **options)
    except Exception as error:  # orbax and tensorstore raise many types for a damaged folder
        raise ValueError(f"{folder}: orbax cannot read it: {first_line(error)}") from None


def _leaves(tree: Any) -> dict[str, Any]:
    return {".".join(map(str, path)): leaf for path, leaf in flat(tree).items()}


class _Restored:
    """The arrays of a checkpoint that are restored and not yet read."""

    def __init__(self, folder: Path, tree: Any) -> None:
        self._folder, self._tree = folder, tree
        self._arrays: dict[str, Array] = {}
        self._closed = False

    def pop(self, name: str) -> Array:
        if self._closed:
            raise ValueError(f"{self._folder}: cannot read {name}: the checkpoint is closed")
        if name not in self._arrays:
            ocp: Any = importlib.import_module("orbax.checkpoint")
            as_numpy = ocp.RestoreArgs(restore_type=np.ndarray)
            kinds = importlib.import_module("jax").tree.map(lambda _: as_numpy, self._tree)  # pyright: ignore[reportUnknownLambdaType]
            self._arrays = _leaves(_asked(self._folder, "restore", restore_args=kinds))
        return self._arrays.pop(name)

    def close(self) -> None:
        self._arrays, self._closed = {}, True
