"""torch's format before the zip (.pth, .pt, .bin until torch 1.5): pickles, then bytes.

    pickle      a magic number
    pickle      the version of the format, 1001
    pickle      the machine that wrote it: {"little_endian": True, ...}
    pickle      the state dict; its tensors refer to storages by key
    pickle      the keys of the storages, in the order of the following
    storages    of each the number of its items (int64), then the items

The file has no checksums. Whoever knows the file's own should compare it.
"""

import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, cast

from weights_convert.safetensors_io import read_array
from weights_convert.tensors import Checkpoint, Stored
from weights_convert.torch_state import flat, strided
from weights_convert.unpickle import Storage, StridedTensor, extent, loads

MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001
COUNT = 8
"""Bytes before the items of a storage."""


def open_torch_legacy(path: Path) -> Checkpoint:
    """Open a flat state dict, without torch.

    Raises:
        ValueError: the file is not of this format, is damaged or truncated, contains more than
            tensors, or a tensor is outside its storage. The message names the file.
    """
    with ExitStack() as opened:
        file = opened.enter_context(path.open("rb"))
        try:
            tensors = _read_header(file)
            starts = _starts(file, tensors, os.fstat(file.fileno()).st_size)
        except (ValueError, EOFError) as error:
            raise ValueError(f"{path}: {error}") from None
        stored = {n: _stored(file, path, starts, n, view) for n, view in tensors.items()}
        return Checkpoint(stored, opened.pop_all().close)


def _read_header(file: BinaryIO) -> dict[str, StridedTensor]:
    """The tensors of the state dict. The file is then at the keys."""
    found = [loads(file) for _ in range(3)]
    if found[:2] != [MAGIC, VERSION] or not isinstance(found[2], dict):
        raise ValueError("a pickle, but not a file of torch.save")
    if cast(dict[Any, Any], found[2]).get("little_endian") is not True:
        raise ValueError("only little-endian files are supported")
    return flat(loads(file))


def _starts(file: BinaryIO, tensors: Mapping[str, StridedTensor], size: int) -> dict[str, int]:
    """Where the items of each storage begin."""
    storages: dict[str, Storage] = {}
    for name, view in tensors.items():
        if storages.setdefault(view.storage.key, view.storage) != view.storage:
            raise ValueError(f"{name}: its storage has two types or sizes")
    found = loads(file)
    keys = cast(list[Any], found) if isinstance(found, list) else []
    if sorted(map(str, keys)) != sorted(storages):
        raise ValueError("its list of storages does not match its tensors")
    starts: dict[str, int] = {}
    for key, storage in ((str(key), storages[str(key)]) for key in keys):
        starts[key] = file.tell() + COUNT
        count = int.from_bytes(file.read(COUNT), "little", signed=True)
        end = starts[key] + storage.numel * storage.dtype.itemsize
        if end > size:
            raise ValueError("truncated: it ends before its last tensor")
        if count != storage.numel:
            raise ValueError(f"a storage has {count} items, not {storage.numel}")
        file.seek(end)
    return starts


def _stored(
    file: BinaryIO, path: Path, starts: Mapping[str, int], name: str, view: StridedTensor
) -> Stored:
    dtype = view.storage.dtype
    start = starts[view.storage.key] + view.offset * dtype.itemsize

    def read() -> Any:
        return strided(read_array(file, start, (extent(view),), dtype, f"{path}: {name}"), view)

    return Stored(view.shape, dtype, read)
