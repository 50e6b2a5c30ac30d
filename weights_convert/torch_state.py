"""The object in a torch file, whatever the file's format: a flat dict from names to tensors."""

from typing import Any, cast

import numpy as np

from weights_convert.errors import listed
from weights_convert.tensors import Array
from weights_convert.unpickle import StridedTensor


def flat(state: Any) -> dict[str, StridedTensor]:
    """The pickled object. ValueError, which lists the other items, unless it is a flat dict from
    names to tensors.
    """
    if not isinstance(state, dict):
        raise ValueError(f"contains a {type(state).__name__}, not a dict from names to tensors")
    items = cast(dict[Any, Any], state)
    odd = [
        f"{name!r} ({type(value).__name__})"
        for name, value in items.items()
        if not (isinstance(name, str) and isinstance(value, StridedTensor))
    ]
    if odd:
        raise ValueError(f"contains more than named tensors: {listed(odd)}")
    return items


def of_training(found: Any) -> tuple[Any, int | None]:
    """The state dict of a training program's checkpoint, and the number of its optimizer steps. In
    a file without "state_dict", the tensors stand beside what else there is.
    """
    if not isinstance(found, dict):
        return found, None
    top = cast(dict[Any, Any], found)
    named = {name: value for name, value in top.items() if isinstance(name, str)}
    # What is no tensor has a plain name, unless it is one that this reader does not know.
    tensors = {n: v for n, v in named.items() if isinstance(v, StridedTensor) or "." in n}
    step = top.get("global_step")
    return top.get("state_dict", tensors), step if type(step) is int else None


def strided(items: Array, view: StridedTensor) -> Array:
    """The tensor in C order, from the items of its storage that it spans."""
    if items.size == 0:
        return np.empty(view.shape, view.storage.dtype)
    if view.strides == _row_major(view.shape):
        return items.reshape(view.shape)
    bytes_strides = [stride * view.storage.dtype.itemsize for stride in view.strides]
    return np.lib.stride_tricks.as_strided(items, view.shape, bytes_strides).copy(order="C")


def _row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides: list[int] = []
    step = 1
    for length in reversed(shape):
        strides.insert(0, step)
        step *= length
    return tuple(strides)
