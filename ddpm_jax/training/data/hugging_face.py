"""Data sets in the format of Hugging Face datasets, from a folder or from the hub."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ddpm_jax.training.data.corrupt import PictureError
from ddpm_jax.training.data.needs import missing
from ddpm_jax.training.data.pictures import Header, Pixels, decode, read_header
from ddpm_jax.training.data.settings import Data

if TYPE_CHECKING:
    import datasets

LABEL_NAMES = ("label", "labels", "y", "class", "target")
PATIENCE = 10
"""Seconds to wait for the hub's first answer."""
MARKS = ("state.json", "dataset_dict.json")
"""Files of a folder that `save_to_disk` wrote."""


@dataclass(frozen=True)
class Rows:
    """The picture column of a data set.

    Attributes:
        rows: that column alone, as encoded bytes or a path.
        column: its name.
        name: the data set's.
    """

    rows: "datasets.Dataset"
    column: str
    name: str

    def __len__(self) -> int:
        return len(self.rows)

    def header(self, index: int) -> Header:
        """Size and channels of a picture. Raises PictureError."""
        return read_header(self._file(index))

    def read(self, index: int, channels: int) -> Pixels:
        """The pixels of a picture. Raises PictureError."""
        return decode(self._file(index), channels)

    def name_of(self, index: int) -> str:
        """Which row it is."""
        return f"row {index} of {self.name}"

    def _file(self, index: int) -> bytes | Path:
        value = self.rows[index][self.column]
        if value is None or (not value["bytes"] and not value["path"]):
            raise PictureError("the row holds no picture")
        return value["bytes"] or Path(value["path"])


def is_saved(folder: Path) -> bool:
    """Whether `save_to_disk` wrote this folder."""
    return any((folder / mark).is_file() for mark in MARKS)


def open_saved(folder: Path, data: Data) -> "datasets.Dataset":
    """A folder that `save_to_disk` wrote."""
    hf = _datasets(f"{folder}, saved by Hugging Face datasets,")
    try:
        found = hf.load_from_disk(os.fspath(folder))
    except Exception as error:  # whatever pyarrow and json have to say of a damaged folder
        raise ValueError(f"{folder} cannot be read: {_first_line(error)}") from error
    return _split(found, data.split, str(folder))


def open_hub(data: Data) -> "datasets.Dataset":
    """A data set of the hub, from the cache where it is there."""
    hf = _datasets(f"{data.name}, which is no local file or folder and so a hub id,")
    unreachable = _unreachable(hf.config.HF_ENDPOINT, data)
    try:
        with _offline(hf.config, unreachable is not None):
            found = hf.load_dataset(data.name, data.subset, revision=data.revision)
    except Exception as error:  # no network, no such data set, gated, a script: many classes
        raise ValueError(
            f"there is no local file or folder {data.name!r}, and as a data set of the hub it "
            f"could not be had: {unreachable or _first_line(error)}"
        ) from error
    return _split(found, data.split, data.name)


def _unreachable(endpoint: str, data: Data) -> str | None:
    """Why the hub does not answer, or None. It is asked once, where datasets would try for half a
    minute before it looks into its cache.
    """
    from huggingface_hub import HfApi, errors

    try:
        HfApi(endpoint).dataset_info(data.name, revision=data.revision, timeout=PATIENCE)
    except (errors.HfHubHTTPError, ValueError):  # an answer, or no name at all: datasets says what
        return None
    except Exception as error:  # the HTTP client's, which differs between versions
        return f"the hub cannot be reached ({_first_line(error)}), and the cache does not hold it"
    return None


@contextmanager
def _offline(config: Any, really: bool) -> Iterator[None]:
    """Lets datasets look into its cache at once."""
    before = config.HF_HUB_OFFLINE
    config.HF_HUB_OFFLINE = before or really
    try:
        yield
    finally:
        config.HF_HUB_OFFLINE = before


def _datasets(user: str) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise missing("datasets", user) from error
    return datasets


def _split(found: Any, split: str | None, name: str) -> "datasets.Dataset":
    """The split that is wanted: "train" or the only one by default."""
    if not isinstance(found, Mapping):
        if split is not None and str(found.split) != split:
            raise ValueError(f"{name} holds one split, {found.split}, not {split!r}")
        return found
    wanted = split or ("train" if "train" in found or len(found) > 1 else next(iter(found)))
    if wanted not in found:
        raise ValueError(f"{name} has no split {wanted!r}: give one of {', '.join(found)}")
    return found[wanted]


def rows(dataset: "datasets.Dataset", data: Data) -> Rows:
    """The pictures of a data set. ValueError where it is not clear which column they are."""
    from datasets import Image

    columns = [name for name, kind in dataset.features.items() if isinstance(kind, Image)]
    wanted = data.image_column
    if wanted is None and len(columns) == 1:
        wanted = columns[0]
    if wanted is None or wanted not in columns:
        asked = f"no picture column {wanted!r}" if wanted else f"{len(columns)} picture columns"
        raise ValueError(
            f"{data.name} has {asked}; its columns: {_described(dataset)}. "
            "Give one of type Image as image_column"
        )
    alone = dataset.select_columns([wanted]).cast_column(wanted, Image(decode=False))
    return Rows(alone.with_format(None), wanted, data.name)


def row_labels(
    dataset: "datasets.Dataset", data: Data
) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """The labels of a data set and the classes' names, None where it gives none."""
    column = _label_column(dataset, data)
    values = np.asarray(dataset.select_columns([column]).with_format("numpy")[:][column])
    names = getattr(dataset.features[column], "names", None)
    if values.dtype.kind in "OUS" and all(isinstance(value, str) for value in values):
        classes, numbers = np.unique(values.astype(str), return_inverse=True)
        return numbers, tuple(classes.tolist())
    return values, tuple(names) if names else None


def _label_column(dataset: "datasets.Dataset", data: Data) -> str:
    from datasets import ClassLabel

    typed = [name for name, kind in dataset.features.items() if isinstance(kind, ClassLabel)]
    usual = [name for name in LABEL_NAMES if name in dataset.features]
    if data.label_column is not None:
        wanted = data.label_column
    elif len(typed) == 1:
        wanted = typed[0]
    else:
        wanted = usual[0] if usual else None
    if wanted is None or wanted not in dataset.features:
        asked = f"no column {wanted!r}" if wanted else "no column that is clearly its labels"
        raise ValueError(
            f"{data.name} has {asked}; its columns: {_described(dataset)}. "
            "Give one of whole numbers or names as label_column"
        )
    return wanted


def _described(dataset: "datasets.Dataset") -> str:
    kinds = ((name, getattr(kind, "dtype", None)) for name, kind in dataset.features.items())
    return ", ".join(
        f"{name} ({kind or type(dataset.features[name]).__name__})" for name, kind in kinds
    )


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
