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
from weights_convert.tensors import Array, Checkpoint, Stored

_MARKS = ("_CHECKPOINT_METADATA", "_METADATA")


def is_orbax(folder: Path) -> bool:
    """Whether a folder is a complete orbax checkpoint."""
    return any((folder / mark).is_file() for mark in _MARKS)


def _orbax() -> Any:
    return importlib.import_module("orbax.checkpoint")


def write_orbax(folder: Path, params: Mapping[str, Any]) -> None:
    """Write a params tree into `folder`, which must not exist.

    orbax copies all arrays before it writes the first one.
    """
    ocp = _orbax()
    with ocp.PyTreeCheckpointer() as checkpointer:
        checkpointer.save(folder.resolve(), params)


def open_orbax(folder: Path) -> Checkpoint:
    """The arrays of a checkpoint, in Flax's names, joined with dots, and Flax's layout.

    orbax restores only whole trees, so the first read loads all arrays. Each array is released when
    it is read.

    Raises:
        ValueError: orbax cannot read the folder, or it is not a nested dict of arrays.
    """
    tree = _metadata(folder)
    leaves = _leaves(tree, "")
    odd = [name for name, leaf in leaves.items() if not hasattr(leaf, "shape")]
    if odd or not leaves:
        raise ValueError(f"{folder} is not a nested dict of arrays: {listed(odd) or 'empty'}")
    whole = _Restored(folder, tree)
    stored = {
        name: Stored(tuple(leaf.shape), np.dtype(leaf.dtype), partial(whole.pop, name))
        for name, leaf in leaves.items()
    }
    return Checkpoint(stored, whole.close)


def _metadata(folder: Path) -> Any:
    ocp = _orbax()
    try:
        with ocp.PyTreeCheckpointer() as checkpointer:
            found = checkpointer.metadata(folder.resolve())
    except Exception as error:  # orbax and tensorstore raise many types for a damaged folder
        raise ValueError(f"{folder}: orbax cannot read it: {first_line(error)}") from None
    # Newer orbax versions wrap the tree of array metadata once or twice; old ones do not.
    found = getattr(found, "item_metadata", found)
    return getattr(found, "tree", found)


def _leaves(tree: Any, prefix: str) -> dict[str, Any]:
    if not isinstance(tree, Mapping):
        return {prefix.removesuffix("."): tree}
    leaves: dict[str, Any] = {}
    for name, value in tree.items():  # pyright: ignore[reportUnknownVariableType]
        leaves |= _leaves(value, f"{prefix}{name}.")
    return leaves


class _Restored:
    """The arrays of a checkpoint. All are restored when the first is read, and again when an array
    is read a second time.
    """

    def __init__(self, folder: Path, tree: Any) -> None:
        self._folder = folder
        self._tree = tree
        self._arrays: dict[str, Array] = {}
        self._closed = False

    def pop(self, name: str) -> Array:
        if self._closed:
            raise ValueError(f"{self._folder}: cannot read {name}: the checkpoint is closed")
        if name not in self._arrays:
            self._arrays = _leaves(self._restore(), "")
        return self._arrays.pop(name)

    def _restore(self) -> Any:
        ocp, tree_map = _orbax(), importlib.import_module("jax").tree.map
        kinds = tree_map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), self._tree)  # pyright: ignore[reportUnknownLambdaType]
        try:
            with ocp.PyTreeCheckpointer() as checkpointer:
                return checkpointer.restore(self._folder.resolve(), restore_args=kinds)
        except Exception as error:
            raise ValueError(f"{self._folder}: orbax cannot read it: {first_line(error)}") from None

    def close(self) -> None:
        self._arrays, self._closed = {}, True
