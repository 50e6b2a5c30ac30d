"""A small writer of torch's formats, to make .bin files without torch, the malicious and the
damaged ones too."""

import pickle
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


class Runs:
    """Calls a function when `pickle` loads it; `state` is what BUILD would set."""

    def __init__(self, function: Any, *arguments: Any, state: Any = None) -> None:
        self.call = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self) -> Any:
        return self.call


STORAGE_NAMES = {
    "float32": "FloatStorage",
    "float16": "HalfStorage",
    "bfloat16": "BFloat16Storage",
    "float64": "DoubleStorage",
    "int64": "LongStorage",
    "int32": "IntStorage",
}


def text(string: str) -> bytes:
    return b"X" + struct.pack("<I", len(string.encode())) + string.encode()


def number(value: int) -> bytes:
    return b"\x8a" + bytes([(data := pickle.encode_long(value)).__len__()]) + data


def numbers(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(number(value) for value in values) + b"t"


def named(name: str) -> bytes:
    """The opcode that names a global, "module attribute"."""
    return b"c" + name.replace(" ", "\n", 1).encode() + b"\n"


def storage(key: str, kind: str, numel: int, *, old: bool = False) -> bytes:
    parts = text("storage") + named(f"torch {kind}") + text(key) + text("cpu") + number(numel)
    return b"(" + parts + (b"N" if old else b"") + b"tQ"


def tensor(
    key: str,
    kind: str,
    numel: int,
    offset: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    *,
    old: bool = False,
) -> bytes:
    view = storage(key, kind, numel, old=old) + number(offset) + numbers(shape) + numbers(strides)
    hooks = b"\x89" + named("collections OrderedDict") + b")R"
    return named("torch._utils _rebuild_tensor_v2") + b"(" + view + hooks + b"tR"


def dictionary(items: Mapping[str, bytes]) -> bytes:
    """The opcodes of a dict whose values are given as opcodes."""
    return b"}(" + b"".join(text(name) + value for name, value in items.items()) + b"u"


def state_dict(items: Mapping[str, bytes]) -> bytes:
    """The pickle of a dict whose values are given as opcodes."""
    return b"\x80\x02" + dictionary(items) + b"."


def write_zip(
    path: Path,
    pickled: bytes,
    records: Mapping[str, bytes],
    *,
    root: str = "archive",
    compression: int = zipfile.ZIP_STORED,
) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr(f"{root}/data.pkl", pickled)
        for name, data in records.items():
            archive.writestr(f"{root}/{name}", data)
        archive.writestr(f"{root}/version", b"3\n")
    return path


def save(path: Path, arrays: Mapping[str, np.ndarray[Any, Any]], **options: Any) -> Path:
    """As torch.save of a state dict."""
    items, records = entries(arrays)
    return write_zip(path, state_dict(items), records, **options)


def entries(
    arrays: Mapping[str, np.ndarray[Any, Any]], *, old: bool = False
) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """The opcodes of tensors, and the records of their storages, one for each."""
    items: dict[str, bytes] = {}
    records: dict[str, bytes] = {"byteorder": b"little"}
    for key, (name, array) in enumerate(arrays.items()):
        strides = tuple(s // array.itemsize for s in np.empty_like(array, order="C").strides)
        kind = STORAGE_NAMES[str(array.dtype)]
        items[name] = tensor(str(key), kind, array.size, 0, array.shape, strides, old=old)
        records[f"data/{key}"] = array.tobytes()
    return items, records


def old(
    pickled: bytes,
    storages: Mapping[str, np.ndarray[Any, Any]],
    *,
    header: tuple[Any, ...] = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}),
) -> bytes:
    """A file in the format from before torch 1.6: pickles, and the storages behind them."""
    parts = [pickle.dumps(part, 2) for part in header]
    parts += [pickled, pickle.dumps(list(storages), 2)]
    parts += [struct.pack("<q", one.size) + one.tobytes() for one in storages.values()]
    return b"".join(parts)


def write_old(path: Path, *content: Any, **options: Any) -> Path:
    """Writes what `old` makes."""
    path.write_bytes(old(*content, **options))
    return path


def save_old(path: Path, arrays: Mapping[str, np.ndarray[Any, Any]]) -> Path:
    """As torch.save of a state dict until torch 1.5."""
    keyed = {str(key): array for key, array in enumerate(arrays.values())}
    return write_old(path, state_dict(entries(arrays, old=True)[0]), keyed)
