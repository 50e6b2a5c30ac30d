"""torch's zip format (.bin, .pt since torch 1.6): a pickle of names and views, and one record of
bytes per storage.

    archive/data.pkl        the state dict; its tensors refer to storages by key
    archive/data/<key>      the items of one storage
    archive/byteorder       "little" or "big"; absent in older files, which are little-endian

torch does not compress records, so a tensor is read directly from its position in the file.

A training program's checkpoint has its state dicts inside other dicts or lists (`state_dicts`),
beside objects of its own, which are not needed.
"""

import os
import zipfile
import zlib
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from weights_convert.errors import faults_of, listed
from weights_convert.safetensors_io import read_array
from weights_convert.state_dicts import chosen_sets, is_nested, state_dicts
from weights_convert.tensors import Array, Checkpoint, Stored, raw_bytes
from weights_convert.unpickle import StridedTensor, extent, loads

ENCRYPTED = 0x1  # flag bit of a zip entry
LARGEST = 2  # times the file: a tensor that repeats items, by strides of 0, may take as much
LOCAL_HEADER = 30  # bytes before the name in a zip's local header

Records = Mapping[str, zipfile.ZipInfo]


def open_torch_zip(path: Path, *, training: bool = False) -> Checkpoint:
    """Open a .bin, .pt or .ckpt file, without torch.

    Args:
        path: the file.
        training: the file may be a training program's checkpoint. Its other objects are left out,
            whatever classes they name. Otherwise the file must hold state dicts of tensors only.

    Raises:
        ValueError: the zip is damaged or truncated, the pickle contains more than tensors, a tensor
            is outside its storage, or a storage has another size than the pickle states. The
            message names the file.
    """
    with ExitStack() as opened:
        file = opened.enter_context(path.open("rb"))
        with faults_of(path):
            records, pickled = _read_directory(file)
            found, training = unpickled(lambda inert: loads(pickled, inert=inert), training)

            def stored(name: str, view: StridedTensor) -> Stored:
                return _stored(file, path, records, name, view)

            fields = checkpoint_fields(found, training, stored)
        return Checkpoint(**fields, close=opened.pop_all().close)


def unpickled(load: Callable[[bool], Any], training: bool) -> tuple[Any, bool]:
    """The object in a pickle, and whether it is a training program's.

    One with state dicts inside other dicts or lists is, whatever else it names; of a flat one,
    everything must be known. `load` is `loads`, with its argument `inert`.
    """
    if training:
        return load(True), True
    try:
        return load(False), False
    except ValueError:
        found = load(True)
        if not is_nested(found):
            raise
        return found, True


def checkpoint_fields(
    found: Any, training: bool, stored: Callable[[str, StridedTensor], Stored]
) -> dict[str, Any]:
    """The fields of a `Checkpoint`, from an unpickled object.

    Args:
        found: the object.
        training: as in `open_torch_zip`.
        stored: makes a `Stored` of a tensor's name and view.
    """
    plain, average = (
        None if one is None else _flat(_named(one) if training else one)
        for one in state_dicts(found)
    )
    plain, average, is_average = chosen_sets(plain, average)
    return {
        "stored": {name: stored(name, view) for name, view in plain.items()},
        "average": average and {name: stored(name, view) for name, view in average.items()},
        "is_average": is_average,
        "global_step": _step(found) if training else None,
    }


def _read_directory(file: BinaryIO) -> tuple[dict[str, zipfile.ZipInfo], bytes]:
    """The zip's records, by their name in the archive folder, and the pickle."""
    try:
        with zipfile.ZipFile(file) as archive:
            records = _records(archive.infolist())
            order = archive.read(records["byteorder"]) if "byteorder" in records else b"little"
            pickled = archive.read(records["data.pkl"])
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise ValueError(f"not a torch file, or truncated: {error}") from None
    if order != b"little":
        raise ValueError(f"byte order {order!r}: only little-endian files are supported")
    return records, pickled


def _records(entries: list[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
    roots = [e.filename.removesuffix("data.pkl") for e in entries if _is_pickle(e.filename)]
    if len(roots) != 1:
        raise ValueError(f"not a file of torch.save: the zip has {len(roots)} data.pkl")
    inside = [entry for entry in entries if entry.filename.startswith(roots[0])]
    records = {entry.filename.removeprefix(roots[0]): entry for entry in inside}
    if len(records) < len(inside):
        raise ValueError("the zip has two records with the same name")
    _check_plain(records)
    return records


def _is_pickle(name: str) -> bool:
    return name == "data.pkl" or (name.endswith("/data.pkl") and name.count("/") == 1)


def _check_plain(records: Records) -> None:
    """Raises ValueError for compressed records: torch writes none, and a small one could unpack to
    more than fits in memory.
    """
    odd = [
        name
        for name, entry in records.items()
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & ENCRYPTED
    ]
    if odd:
        raise ValueError(f"records that are compressed or encrypted: {listed(sorted(odd))}")


def _named(state: dict[Any, Any]) -> dict[str, Any]:
    """The tensors of a state dict, without what stands beside them."""
    named = {name: value for name, value in state.items() if isinstance(name, str)}
    # What is no tensor has a plain name, unless it is one that this reader does not know.
    return {n: v for n, v in named.items() if isinstance(v, StridedTensor) or "." in n}


def _step(found: Any) -> int | None:
    """The number of optimizer steps that a training program states."""
    step = cast(dict[Any, Any], found).get("global_step") if isinstance(found, dict) else None
    return step if type(step) is int else None


def _flat(state: dict[Any, Any]) -> dict[str, StridedTensor]:
    """The state dict. ValueError, which lists the other items, unless it is a flat dict from
    names to tensors.
    """
    odd = [
        f"{name!r} ({type(value).__name__})"
        for name, value in state.items()
        if not (isinstance(name, str) and isinstance(value, StridedTensor))
    ]
    if odd:
        raise ValueError(f"contains more than named tensors: {listed(odd)}")
    return state


def _stored(file: BinaryIO, path: Path, records: Records, name: str, view: StridedTensor) -> Stored:
    record = records.get(f"data/{view.storage.key}")
    wanted = view.storage.numel * view.storage.dtype.itemsize
    if record is None or record.file_size != wanted:
        found = "is missing" if record is None else f"has {record.file_size} bytes, not {wanted}"
        raise ValueError(f"{name}: its storage data/{view.storage.key} {found}")
    size = os.fstat(file.fileno()).st_size
    if record.header_offset < 0 or record.header_offset + record.file_size > size:
        raise ValueError(f"truncated: {name}: its storage reaches beyond the end of the file")
    what = f"{path}: {name}"
    stored = Stored(view.shape, view.storage.dtype, lambda: _read(file, record, view, what))
    check_size(name, stored, size)
    return stored


def check_size(name: str, stored: Stored, size: int) -> None:
    """Raises ValueError for a tensor that repeats so few items that it is larger than the file."""
    if stored.nbytes > LARGEST * size:
        raise ValueError(
            f"{name}: of shape {stored.shape} it repeats few items and is {stored.nbytes} bytes, "
            f"in a file of {size}"
        )


def _read(file: BinaryIO, record: zipfile.ZipInfo, view: StridedTensor, what: str) -> Array:
    """Read the part of the storage that the tensor spans, and return the tensor in C order."""
    dtype, count = view.storage.dtype, extent(view)
    start = _data_start(file, record, what) + view.offset * dtype.itemsize
    items = read_array(file, start, (count,), dtype, what)
    # The checksum covers the whole storage, so a partial view cannot be checked.
    if count == view.storage.numel and zlib.crc32(raw_bytes(items)) != record.CRC:
        raise ValueError(f"{what}: its bytes do not match the file's checksum")
    return strided(items, view)


def strided(items: Array, view: StridedTensor) -> Array:
    """The tensor in C order, from the items of its storage that it spans."""
    if not items.size:
        return np.empty(view.shape, items.dtype)
    bytes_strides = [stride * items.itemsize for stride in view.strides]
    plain = items.view(f"u{items.itemsize}")  # as_strided does not know all dtypes of ml_dtypes
    found = np.lib.stride_tricks.as_strided(plain, view.shape, bytes_strides)
    return np.asarray(found, order="C").view(items.dtype)  # copied unless it is in C order


def _data_start(file: BinaryIO, record: zipfile.ZipInfo, what: str) -> int:
    """Where a record's bytes start: after its local header, whose name and padding vary in
    length.
    """
    file.seek(record.header_offset)
    header = file.read(LOCAL_HEADER)
    if len(header) < LOCAL_HEADER or header[:4] != b"PK\x03\x04":
        raise ValueError(f"{what}: its record in the zip is damaged")
    name, padding = (int.from_bytes(header[at : at + 2], "little") for at in (26, 28))
    return record.header_offset + LOCAL_HEADER + name + padding
