"""Data sets in the format of Hugging Face datasets, from a folder or from the hub."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ddpm_jax.extras import check_installed
from ddpm_jax.hub.files import first_line
from ddpm_jax.training.data.decoding import Header, Pixels, UnreadableImage, decode, read_header
from ddpm_jax.training.data.settings import Data
from ddpm_jax.training.data.source import Opened

if TYPE_CHECKING:
    import datasets

LABEL_NAMES = ("label", "labels", "y", "class", "target")
MARKS = ("state.json", "dataset_dict.json")
"""Files that `save_to_disk` writes, by which its folders are recognized."""


@dataclass(frozen=True)
class DatasetImages:
    """The image column of a data set.

    Attributes:
        rows: that column alone, as encoded bytes or a path.
        column: its name.
        name: the data set's.
    """

    rows: "datasets.Dataset"
    column: str
    name: str
    converts = True

    def __len__(self) -> int:
        return len(self.rows)

    def header(self, index: int) -> Header:
        """Size and channels of an image. Raises UnreadableImage."""
        return read_header(self._file(index))

    def read(self, index: int, channels: int) -> Pixels:
        """The pixels of an image. Raises UnreadableImage."""
        return decode(self._file(index), channels)

    def name_of(self, index: int) -> str:
        """Its row."""
        return f"row {index} of {self.name}"

    def _file(self, index: int) -> bytes | Path:
        value = self.rows[index][self.column]
        if value is None or (not value["bytes"] and not value["path"]):
            raise UnreadableImage("the row holds no image")
        return value["bytes"] or Path(value["path"])


def is_saved(folder: Path) -> bool:
    """Whether `save_to_disk` wrote this folder."""
    return any((folder / mark).is_file() for mark in MARKS)


def open_saved(data: Data) -> Opened:
    """The images of a folder that `save_to_disk` wrote."""
    folder = Path(data.name).expanduser()
    hf = _datasets(f"{folder}, saved by Hugging Face datasets,")
    try:
        found = hf.load_from_disk(os.fspath(folder))
    except Exception as error:  # pyarrow and json raise many classes for a damaged folder
        raise ValueError(f"{folder} cannot be read: {first_line(error)}") from error
    return _opened(_split(found, data), data)


def has_parquet(folder: Path) -> bool:
    """Whether a folder is a cloned data set: Parquet files in it or in its data/."""
    return any(any(folder.glob(pattern)) for pattern in ("*.parquet", "data/*.parquet"))


def open_parquet(data: Data) -> Opened:
    """The images of one Parquet file, or of a cloned data set."""
    path = Path(data.name).expanduser()
    hf = _datasets(f"{path}, Parquet files,")
    try:
        if path.is_file():
            found = hf.load_dataset("parquet", data_files=os.fspath(path))
        else:
            found = hf.load_dataset(os.fspath(path))
    except Exception as error:  # pyarrow raises many classes for a damaged file
        raise ValueError(f"{path} cannot be read: {first_line(error)}") from error
    return _opened(_split(found, data), data)


def open_hub(data: Data) -> Opened:
    """The images of a data set on the hub, or of its cached copy."""
    hf = _datasets(f"{data.name}, which is no local file or folder and so a hub id,")
    try:
        found = hf.load_dataset(data.name, data.subset, revision=data.revision)
    except Exception as error:  # no network, no such data set, gated, a script: many classes
        raise ValueError(
            f"there is no local file or folder {data.name!r}, and the data set of this name cannot "
            f"be loaded from the hub: {first_line(error)}"
        ) from error
    return _opened(_split(found, data), data)


def _datasets(user: str) -> Any:
    check_installed(("datasets",), user)
    import datasets

    return datasets


def _opened(dataset: "datasets.Dataset", data: Data) -> Opened:
    images = _images(dataset, data)
    return Opened(images, *_labels(dataset, data)) if data.labels else Opened(images)


def _split(found: Any, data: Data) -> "datasets.Dataset":
    """`data.split`; by default "train" or the only one."""
    split, name = data.split, data.name
    if not isinstance(found, Mapping):
        if split is not None and str(found.split) != split:
            raise ValueError(f"{name} holds one split, {found.split}, not {split!r}")
        return found
    wanted = split or ("train" if "train" in found or len(found) > 1 else next(iter(found)))
    if wanted not in found:
        raise ValueError(f"{name} has no split {wanted!r}: give one of {', '.join(found)}")
    return found[wanted]


def _images(dataset: "datasets.Dataset", data: Data) -> DatasetImages:
    """The images of a data set. ValueError if it is not clear which column holds them."""
    from datasets import Image

    columns = [name for name, kind in dataset.features.items() if isinstance(kind, Image)]
    wanted = data.image_column
    if wanted is None and len(columns) == 1:
        wanted = columns[0]
    if wanted is None or wanted not in columns:
        asked = f"no image column {wanted!r}" if wanted else f"{len(columns)} image columns"
        raise ValueError(
            f"{data.name} has {asked}; its columns: {_described(dataset)}. "
            "Give one of type Image as image_column"
        )
    alone = dataset.select_columns([wanted]).cast_column(wanted, Image(decode=False))
    return DatasetImages(alone.with_format(None), wanted, data.name)


def _labels(dataset: "datasets.Dataset", data: Data) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """The labels of a data set and the classes' names, None if they have no names."""
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
