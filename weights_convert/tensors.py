"""A checkpoint as a lazy mapping: names, shapes and dtypes are known; a tensor is read on access.

Each reader of this package returns a dict of `Stored`: a tensor's shape and dtype, and a function
that reads it. To rename or transpose a whole checkpoint is then a dict comprehension, and only one
tensor is in memory at a time.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import ml_dtypes
import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]
Shape: TypeAlias = tuple[int, ...]

BFLOAT16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
FLOAT8: dict[str, np.dtype[Any]] = {
    "float8_e4m3fn": np.dtype(ml_dtypes.float8_e4m3fn),
    "float8_e5m2": np.dtype(ml_dtypes.float8_e5m2),
}
"""By torch's names."""


@dataclass(frozen=True)
class Stored:
    """A tensor that is not yet read: shape, dtype, and `read`, which returns a new array."""

    shape: Shape
    dtype: np.dtype[Any]
    read: Callable[[], Array]

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Number of bytes of the array that `read` returns."""
        return self.size * self.dtype.itemsize

    def mapped(self, shape: Shape, change: Callable[[Array], Array]) -> "Stored":
        """The tensor after `change`, which returns an array of `shape`."""
        return Stored(shape, self.dtype, lambda: change(self.read()))


class Checkpoint(Mapping[str, Any]):  # Any, not Array: a runtime type checker would read values
    """A read-only mapping from tensor names to NumPy arrays, read one at a time, on access.

    Each access reads the tensor again. Use the checkpoint as a context manager, or call `close`, to
    close its files. Do not read from several threads at once.
    """

    def __init__(
        self,
        stored: Mapping[str, Stored],
        close: Callable[[], None] = lambda: None,
        *,
        global_step: int | None = None,
        average: Mapping[str, Stored] | None = None,
        is_average: bool | None = None,
    ) -> None:
        self.stored = stored
        self.global_step = global_step
        """The optimizer steps that a training program's checkpoint states, or None."""
        self.average = average
        """The moving average of these weights (EMA), where the file has both."""
        self.is_average = is_average
        """Whether these weights themselves are a moving average; None: the file does not say it."""
        self._close = close

    @property
    def shapes(self) -> dict[str, Shape]:
        """The shape of every tensor; reads no data."""
        return {name: tensor.shape for name, tensor in self.stored.items()}

    @property
    def dtypes(self) -> dict[str, np.dtype[Any]]:
        """The stored dtype of every tensor; reads no data."""
        return {name: tensor.dtype for name, tensor in self.stored.items()}

    def __getitem__(self, name: str) -> Array:
        return self.stored[name].read()

    def __iter__(self) -> Iterator[str]:
        return iter(self.stored)

    def __len__(self) -> int:
        return len(self.stored)

    def __contains__(self, name: object) -> bool:  # Mapping's version would read the tensor
        return name in self.stored

    def chosen(self, ema: bool | None) -> "Checkpoint":
        """These weights, or their moving average. Both share the open files.

        Args:
            ema: True for the average; False for the other weights, if there are others; None if
                there is nothing to choose.

        Raises:
            ValueError: the file has both and `ema` is None, or it has no average.
        """
        if self.average is not None and ema is None:
            raise ValueError(
                "has two sets of weights, plain ones and their moving average (EMA): convert this "
                "file, with ema or without"
            )
        if ema and self.average is None and not self.is_average:
            raise ValueError("has no moving average (EMA)")
        if self.average is None:
            return self
        stored = self.average if ema else self.stored
        return Checkpoint(stored, self._close, global_step=self.global_step, is_average=bool(ema))

    def close(self) -> None:
        """Close the files. Reading a tensor afterwards raises ValueError."""
        self._close()

    def __enter__(self) -> "Checkpoint":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def stored_of(tensors: Mapping[str, Any]) -> Mapping[str, Stored]:
    """The tensors of a `Checkpoint`, or of a plain mapping of NumPy or JAX arrays, as `Stored`."""
    if isinstance(tensors, Checkpoint):
        return tensors.stored
    return {name: as_stored(array) for name, array in tensors.items()}


def as_stored(array: Any) -> Stored:
    """A NumPy or JAX array, a number or a `Stored`, as `Stored`. A JAX array is copied to the host
    on read.
    """
    if isinstance(array, Stored):
        return array
    if not hasattr(array, "shape") or not hasattr(array, "dtype"):
        array = np.asarray(array)
    shape = tuple(int(length) for length in array.shape)
    return Stored(shape, np.dtype(array.dtype), lambda: np.asarray(array))


def thirds(tensor: Stored, groups: int = 1) -> list[Stored]:
    """Queries, keys and values, of which a tensor has in each group of rows as many one after the
    other.
    """
    if not tensor.shape or tensor.shape[0] % (3 * groups):
        raise ValueError(f"shape {tensor.shape} is not of queries, keys and values")
    width = tensor.shape[0] // 3
    shape = (width, *tensor.shape[1:])

    def third(k: int) -> Stored:
        parts = (groups, 3, width // groups, *shape[1:])
        return tensor.mapped(shape, lambda array: array.reshape(parts)[:, k].copy().reshape(shape))

    return [third(k) for k in range(3)]


def raw_bytes(array: Array) -> memoryview:
    """The memory of a C-contiguous array, not copied. The view as uint8 is needed because arrays of
    ml_dtypes do not support the buffer protocol.
    """
    return memoryview(cast(Any, array.reshape(-1).view(np.uint8)))
