"""From the settings to a source: the kind of the data set, its labels, and its shape.

A new kind of data set is a function that opens it, and a line in `KINDS`.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int32

from ddpm_jax.training.data.arrays import open_digits, open_npy, open_npz
from ddpm_jax.training.data.files import open_folder
from ddpm_jax.training.data.hugging_face import (
    has_parquet,
    is_saved,
    open_hub,
    open_parquet,
    open_saved,
)
from ddpm_jax.training.data.layout import layout
from ddpm_jax.training.data.readable import readable
from ddpm_jax.training.data.settings import Data
from ddpm_jax.training.data.source import Opened, Source
from ddpm_jax.training.data.transform import Transform

COLUMNS = ("image_column", "label_column")
PLACES = ("split", "subset", "revision", *COLUMNS)
"""Settings that choose a part of a data set; a kind has some of them or none."""


@dataclass(frozen=True)
class Kind:
    """A kind of data set.

    Attributes:
        open: opens it.
        description: what an error calls it.
        places: which of `PLACES` it has.
    """

    open: Callable[[Data], Opened]
    description: str
    places: tuple[str, ...] = ()


KINDS = {
    "digits": Kind(open_digits, "the bundled data set (write ./digits for a folder)"),
    "npy": Kind(open_npy, "a .npy file"),
    "npz": Kind(open_npz, "an .npz file", COLUMNS),
    "folder": Kind(open_folder, "a folder of image files"),
    "saved": Kind(open_saved, "a data set saved on disk", ("split", *COLUMNS)),
    "parquet": Kind(open_parquet, "Parquet files", ("split", *COLUMNS)),
    "hub": Kind(open_hub, "a data set of the hub", PLACES),
}


def open_source(data: Data) -> Source:
    """The images that the settings name.

    Without a number of channels the header of every image file is read, to check that they fit
    together. Otherwise the first hundred headers give the size, if neither resolution nor crop do.

    Raises ValueError for what is not there, does not fit, has no labels or cannot be read;
    ImportError for a package that is missing.
    """
    kind = KINDS[_kind(data.name)]
    _check_places(kind, data)
    opened = kind.open(data)
    labels = _checked_labels(opened, data.name) if data.labels else None
    reader = opened.reader
    if data.skip_unreadable:
        reader = readable(reader, data.skip_unreadable)
        labels = None if labels is None else labels[reader.indices]
    transform = Transform(data.resolution, data.crop, data.flip)
    shape = layout(reader, data, transform)
    return Source(reader, transform, shape, labels, opened.classes)


def _kind(name: str) -> str:
    if name == "digits":
        return "digits"
    path = Path(name).expanduser()
    if path.is_dir():
        return "saved" if is_saved(path) else "parquet" if has_parquet(path) else "folder"
    if path.is_file():
        suffix = path.suffix.lower()
        if suffix in (".zip", ".tar", ".gz", ".tgz"):
            raise ValueError(f"{name} is an archive: unpack it and give the folder")
        if suffix not in (".npy", ".npz", ".parquet"):
            raise ValueError(
                f"{name} is a file, but not .npy, .npz or .parquet: give a folder of images"
            )
        return suffix[1:]
    hub_id = re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) and name[0] not in ".~"
    if not hub_id or path.suffix in (".npy", ".npz"):
        raise ValueError(f"there is no file or folder {name}")
    return "hub"


def _check_places(kind: Kind, data: Data) -> None:
    given = [name for name in PLACES if getattr(data, name) is not None]
    useless = [name for name in given if name not in kind.places]
    if useless:
        raise ValueError(
            f"{' and '.join(useless)} cannot be chosen for {data.name}: it is {kind.description}"
        )


def _checked_labels(opened: Opened, name: str) -> Int32[np.ndarray, "n"]:
    labels, count = opened.labels, len(opened.reader)
    if labels is None:
        raise ValueError(
            f"{name} has no labels: leave labels unset, or give a folder whose subfolders are the "
            "classes, an .npz file with labels, or a Hugging Face data set with labels"
        )
    if labels.shape == (count, 1):
        labels = labels[:, 0]
    if labels.dtype.kind == "b":
        labels = labels.astype(np.int32)
    if labels.dtype.kind in "fO":  # a label that is None in a data set, or NaN for numbers
        none = sum(label is None or label != label for label in labels.ravel().tolist())
        if none:
            raise ValueError(
                f"{none} of {count} labels of {name} are missing: fill or leave them out"
            )
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise ValueError(
            f"the labels of {name} must be {count} whole numbers; got {labels.dtype} of shape "
            f"{labels.shape}"
        )
    low, high = int(labels.min()), int(labels.max())
    top = len(opened.classes) - 1 if opened.classes else np.iinfo(np.int32).max
    if low < 0 or high > top:
        raise ValueError(
            f"the labels of {name} must lie in 0..{top}; got {low} to {high}"
            + (", and -1 means that an image has no label" if low == -1 else "")
        )
    return labels.astype(np.int32)
