"""Read and write .safetensors files, one tensor at a time.

The format: eight bytes with the header length n (little-endian); n bytes of JSON with each tensor's
dtype, shape and byte range; the data, without gaps. This file does not use the safetensors library:
only some of its versions return bfloat16 as NumPy arrays, and it writes only tensors that are all
in memory. The tests compare with the library.
"""

import json
import math
import os
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from weights_convert.errors import faults_of, listed
from weights_convert.tensors import BFLOAT16, FLOAT8, Array, Checkpoint, Shape, Stored, raw_bytes

LONGEST_HEADER = 100_000_000  # bytes; the limit that the safetensors library sets too

DTYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": BFLOAT16,
    "F8_E4M3": FLOAT8["float8_e4m3fn"],
    "F8_E5M2": FLOAT8["float8_e5m2"],
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U64": np.dtype(np.uint64),
    "U32": np.dtype(np.uint32),
    "U16": np.dtype(np.uint16),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}


def open_safetensors(path: Path) -> tuple[Checkpoint, bool]:
    """Open one .safetensors file; also whether its metadata says that it is in Flax's layout.

    Raises:
        ValueError: its header is damaged or does not match the file's size. The message names the
            file.
    """
    with ExitStack() as opened:
        file = opened.enter_context(path.open("rb"))
        with faults_of(path):
            header, start = _read_header(file)
            size = os.fstat(file.fileno()).st_size - start
            metadata = header.pop("__metadata__", None)
            entries = {name: _entry(name, entry) for name, entry in header.items()}
            _check_ranges({name: span for name, (_, _, span) in entries.items()}, size)

        def stored(name: str) -> Stored:
            dtype, shape, (begin, _) = entries[name]
            what = f"{path}: {name}"
            return Stored(shape, dtype, lambda: read_array(file, start + begin, shape, dtype, what))

        is_dict = isinstance(metadata, dict)
        is_flax = is_dict and cast(dict[str, Any], metadata).get("format") == "flax"
        tensors = {name: stored(name) for name in entries}
        return Checkpoint(tensors, opened.pop_all().close), is_flax


def _read_header(file: BinaryIO) -> tuple[dict[str, Any], int]:
    """The JSON header, and where the data starts."""
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    if size < 10 or length > min(size - 8, LONGEST_HEADER):
        raise ValueError(
            f"not a safetensors file, or truncated: a header of {length} bytes in a file of {size}"
        )
    try:
        header: Any = json.loads(file.read(length).decode("utf-8"), object_pairs_hook=_unique)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError):
        raise ValueError("not a safetensors file: its header is not JSON") from None
    if not isinstance(header, dict):
        raise ValueError("not a safetensors file: its header is not a JSON object")
    return cast(dict[str, Any], header), 8 + length


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. ValueError for a duplicate key: readers disagree on which value counts."""
    found = dict(pairs)
    if len(found) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        twice = sorted(key for key, count in counts.items() if count > 1)
        raise ValueError(f"duplicate names in the header: {listed(twice)}")
    return found


def _entry(name: str, entry: Any) -> tuple[np.dtype[Any], Shape, tuple[int, int]]:
    """One tensor's dtype, shape and byte range from the header, checked for consistency."""
    try:
        code, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    except (TypeError, KeyError, ValueError):
        raise ValueError(f"{name}: its header entry lacks dtype, shape or data_offsets") from None
    if not all(type(n) is int and n >= 0 for n in (*shape, begin, end)):
        raise ValueError(
            f"{name}: shape {shape} and range {begin}..{end} must be non-negative integers"
        )
    if not isinstance(code, str) or code not in DTYPES:
        raise ValueError(f"{name}: dtype {code!r} is not one of {', '.join(DTYPES)}")
    wanted = math.prod(shape) * DTYPES[code].itemsize
    if end - begin != wanted:
        raise ValueError(f"{name}: {code} of shape {shape} has {wanted} bytes, not {end - begin}")
    return DTYPES[code], shape, (begin, end)


def _check_ranges(spans: Mapping[str, tuple[int, int]], size: int) -> None:
    """Raises ValueError unless the byte ranges cover the data without overlaps and gaps."""
    at = 0
    for name, (begin, end) in sorted(spans.items(), key=lambda item: item[1]):
        if begin != at:
            kind = "overlaps" if begin < at else "leaves a gap after"
            raise ValueError(f"{name}: its data {kind} the previous tensor")
        if end > size:
            raise ValueError(f"truncated: {name} ends at byte {end} of {size} bytes of data")
        at = end
    if at != size:
        raise ValueError(f"{size - at} bytes at the end belong to no tensor")


def read_array(file: BinaryIO, start: int, shape: Shape, dtype: np.dtype[Any], what: str) -> Array:
    """Read a C-ordered array of `shape` at byte `start`. ValueError, which starts with `what`, if
    the file ends early.
    """
    array = np.empty(shape, dtype)
    file.seek(start)
    read = file.readinto(raw_bytes(array))  # type: ignore[attr-defined]
    if read != array.nbytes:
        raise ValueError(f"{what}: the file ended after {read} of {array.nbytes} bytes")
    return array


def write_safetensors(
    path: Path, stored: Mapping[str, Stored], metadata: Mapping[str, str]
) -> None:
    """Write `path` with one tensor in memory at a time. ValueError for a dtype that the format
    lacks.
    """
    unknown = [f"{name} ({t.dtype})" for name, t in stored.items() if t.dtype not in NAMES]
    if unknown:
        raise ValueError(f"dtypes that safetensors cannot store: {listed(unknown)}")
    # Wide dtypes first, so that every tensor starts at a multiple of its item size.
    order = sorted(stored, key=lambda name: (-stored[name].dtype.itemsize, name))
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    at = 0
    for name in order:
        tensor = stored[name]
        span = [at, at + tensor.nbytes]
        header[name] = {
            "dtype": NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": span,
        }
        at = span[1]
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that the data starts at a multiple of 8, the widest item
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            file.write(raw_bytes(np.asarray(stored[name].read(), order="C")))
        file.flush()
        os.fsync(file.fileno())
