"""torch's format before 1.6: pickles in sequence, then the storages.

    pickle    a number that marks the format
    pickle    1001, the version
    pickle    a dict that says the byte order
    pickle    the object; its tensors refer to storages by key
    pickle    a list of the keys
    for each  int64 number of items, then the items

The files have no checksums.
"""

from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, cast

from weights_convert.errors import faults_of, listed
from weights_convert.safetensors_io import read_array
from weights_convert.tensors import Array, Checkpoint, Stored
from weights_convert.torch_zip import check_size, checkpoint_fields, strided, unpickled
from weights_convert.unpickle import Storage, StridedTensor, extent, loads

_MAGIC, _VERSION = 0x1950A86A20F9469CFC6C, 1001


def open_torch_legacy(path: Path, *, training: bool = False) -> Checkpoint:
    """Open a file of this format, without torch. Arguments and errors as in `open_torch_zip`."""
    with ExitStack() as opened:
        file = opened.enter_context(path.open("rb"))
        with faults_of(path):
            _check_head(file)
            start, storages = file.tell(), list[Storage]()

            def load(inert: bool) -> Any:
                file.seek(start)
                storages.clear()
                return loads(file, inert=inert, storages=storages)

            found, training = unpickled(load, training)
            places = _places(file, path, _by_key(storages))

            def stored(name: str, view: StridedTensor) -> Stored:
                if view.storage.key not in places:
                    raise ValueError(f"{name}: its storage {view.storage.key} is missing")
                at, what = places[view.storage.key], f"{path}: {name}"
                found = Stored(view.shape, view.storage.dtype, lambda: _read(file, at, view, what))
                check_size(name, found, path.stat().st_size)
                return found

            fields = checkpoint_fields(found, training, stored)
        return Checkpoint(**fields, close=opened.pop_all().close)


def _check_head(file: BinaryIO) -> None:
    if loads(file) != _MAGIC:
        raise ValueError("a pickle, but not of torch.save")
    version, system = loads(file), loads(file)
    if version != _VERSION:
        shown = version if type(version) is int else "unknown"  # the text of others may be endless
        raise ValueError(f"version {shown} of torch's old format: only {_VERSION} is read")
    little = isinstance(system, dict) and cast(dict[Any, Any], system).get("little_endian")
    if little is not True:
        raise ValueError("byte order: only little-endian files are supported")


def _by_key(storages: list[Storage]) -> dict[str, Storage]:
    found: dict[str, Storage] = {}
    for one in storages:
        if found.setdefault(one.key, one) != one:
            raise ValueError(f"storage {one.key} has two types or sizes")
    return found


def _places(file: BinaryIO, path: Path, storages: dict[str, Storage]) -> dict[str, int]:
    """The byte at which the items of each storage begin."""
    keys: Any = loads(file)
    # The hash and the text of nested tuples may take forever.
    if type(keys) is not list or not all(type(key) is str for key in cast(list[Any], keys)):
        raise ValueError("its list of storages is damaged")
    unknown = [key for key in cast(list[str], keys) if key not in storages]
    if unknown:
        raise ValueError(f"storages of tensors that are not read: {listed(unknown)}")
    size, places = path.stat().st_size, dict[str, int]()
    for key in cast(list[str], keys):
        stated, wanted = file.read(8), storages[key]
        count = int.from_bytes(stated, "little")
        if len(stated) < 8 or count != wanted.numel:
            raise ValueError(
                f"storage {key} has {count} items, not {wanted.numel}, or is truncated"
            )
        places[key] = file.tell()
        end = places[key] + count * wanted.dtype.itemsize
        if end > size:
            raise ValueError(f"truncated: storage {key} ends at byte {end} of {size}")
        file.seek(end)
    return places


def _read(file: BinaryIO, at: int, view: StridedTensor, what: str) -> Array:
    dtype = view.storage.dtype
    start = at + view.offset * dtype.itemsize
    return strided(read_array(file, start, (extent(view),), dtype, what), view)
