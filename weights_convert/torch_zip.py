"""torch's zip format (.bin, .pt since torch 1.6): a pickle of names and views, and one record of
bytes per storage.

    archive/data.pkl        the state dict; its tensors refer to storages by key
    archive/data/<key>      the items of one storage
    archive/byteorder       "little" or "big"; absent in older files, which are little-endian

torch does not compress records, so a tensor is read directly from its position in the file.

A training program's checkpoint (.ckpt) has the state dict as an item of the pickle, "state_dict",
beside objects of its own, which are not needed.
"""

import zipfile
import zlib
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from weights_convert.errors import listed
from weights_convert.safetensors_io import read_array
from weights_convert.tensors import Array, Checkpoint, Stored, raw_bytes
from weights_convert.torch_state import flat, of_training, strided
from weights_convert.unpickle import StridedTensor, extent, loads

ENCRYPTED = 0x1  # flag bit of a zip entry
LOCAL_HEADER = 30  # bytes before the name in a zip's local header

Records = Mapping[str, zipfile.ZipInfo]


def open_torch_zip(path: Path, *, training: bool = False) -> Checkpoint:
    """Open a .bin, .pt or .ckpt file, without torch.

    Args:
        path: the file.
        training: the file may be a training program's checkpoint. Its other objects are left out,
            whatever classes they name. Otherwise the file must hold a flat state dict.

    Raises:
        ValueError: the zip is damaged or truncated, the pickle contains more than tensors, a tensor
            is outside its storage, or a storage has another size than the pickle states. The
            message names the file.
    """
    with ExitStack() as opened:
        file = opened.enter_context(path.open("rb"))
        try:
            records, pickled = _read_directory(file)
            found = loads(pickled, inert=training)
            state, step = of_training(found) if training else (found, None)
            stored = {n: _stored(file, path, records, n, v) for n, v in flat(state).items()}
        except (ValueError, zipfile.BadZipFile, EOFError, NotImplementedError) as error:
            raise ValueError(f"{path}: {_reason(error)}") from None
        return Checkpoint(stored, opened.pop_all().close, global_step=step)


def _reason(error: Exception) -> str:
    if isinstance(error, ValueError):
        return str(error)
    return f"not a torch file, or truncated: {error}"


def _read_directory(file: BinaryIO) -> tuple[dict[str, zipfile.ZipInfo], bytes]:
    """The zip's records, by their name in the archive folder, and the pickle."""
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        roots = [e.filename.removesuffix("data.pkl") for e in entries if _is_pickle(e.filename)]
        if len(roots) != 1:
            raise ValueError(f"not a file of torch.save: the zip has {len(roots)} data.pkl")
        inside = [entry for entry in entries if entry.filename.startswith(roots[0])]
        records = {entry.filename.removeprefix(roots[0]): entry for entry in inside}
        if len(records) < len(inside):
            raise ValueError("the zip has two records with the same name")
        _check_plain(records)
        order = archive.read(records["byteorder"]) if "byteorder" in records else b"little"
        pickled = archive.read(records["data.pkl"])
    if order != b"little":
        raise ValueError(f"byte order {order!r}: only little-endian files are supported")
    return records, pickled


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


def _stored(file: BinaryIO, path: Path, records: Records, name: str, view: StridedTensor) -> Stored:
    record = records.get(f"data/{view.storage.key}")
    wanted = view.storage.numel * view.storage.dtype.itemsize
    if record is None or record.file_size != wanted:
        found = "is missing" if record is None else f"has {record.file_size} bytes, not {wanted}"
        raise ValueError(f"{name}: its storage data/{view.storage.key} {found}")
    what = f"{path}: {name}"
    return Stored(view.shape, view.storage.dtype, lambda: _read(file, record, view, what))


def _read(file: BinaryIO, record: zipfile.ZipInfo, view: StridedTensor, what: str) -> Array:
    """Read the part of the storage that the tensor spans, and return the tensor in C order."""
    dtype, count = view.storage.dtype, extent(view)
    start = _data_start(file, record, what) + view.offset * dtype.itemsize
    items = read_array(file, start, (count,), dtype, what)
    # The checksum covers the whole storage, so a partial view cannot be checked.
    if count == view.storage.numel and zlib.crc32(raw_bytes(items)) != record.CRC:
        raise ValueError(f"{what}: its bytes do not match the file's checksum")
    return strided(items, view)


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
