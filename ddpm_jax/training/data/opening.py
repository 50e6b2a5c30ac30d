"""From the settings to a source: what the name means, and whether the pictures fit together."""

import re
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Int32

from ddpm_jax.training.data import arrays, hugging_face
from ddpm_jax.training.data.files import folder_labels, open_folder
from ddpm_jax.training.data.layout import layout
from ddpm_jax.training.data.settings import Data
from ddpm_jax.training.data.source import Reader, Source
from ddpm_jax.training.data.transform import Transform

Kind: TypeAlias = Literal["digits", "emoji", "npy", "npz", "folder", "saved", "hub"]

COLUMNS = ("image_column", "label_column")
APPLIES: dict[Kind, tuple[str, ...]] = {
    "npz": COLUMNS,
    "saved": ("split", *COLUMNS),
    "hub": ("split", "subset", "revision", *COLUMNS),
}
"""Which of the fields that say where to look mean something for a kind; else none does."""

EMOJI_SIZE = 32
"""Pixels of the emoji where no resolution is given."""

Opened: TypeAlias = tuple[Reader, np.ndarray | None, tuple[str, ...] | None]
"""A reader, its labels where they are wanted, and the classes' names where it has them."""


def open_source(data: Data) -> Source:
    """The pictures that the settings name.

    Without a resolution, with crop "none", or without a number of channels, the beginning of every
    picture file is read, to see that they fit together.

    Raises ValueError for what is not there, does not fit or has no labels; CorruptPictures where
    more pictures than allowed are unreadable; ImportError for a package that is missing.
    """
    kind = _kind(data.name)
    _check_fields(kind, data)
    reader, labels, classes = _open(kind, data)
    if data.labels:
        labels = _checked_labels(labels, classes, len(reader), data.name)
    transform = Transform(data.resolution, data.crop, data.flip)
    shape = layout(reader, data, transform)
    return Source(reader, transform, shape, labels, classes)


def _kind(name: str) -> Kind:
    if name == "digits" or name == "emoji":
        return name
    path = Path(name).expanduser()
    if path.is_dir():
        return "saved" if hugging_face.is_saved(path) else "folder"
    if path.is_file():
        if path.suffix.lower() == ".npy":
            return "npy"
        if path.suffix.lower() == ".npz":
            return "npz"
        raise ValueError(f"{name} is a file, and no .npy or .npz: give a folder of pictures")
    hub_id = re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) and name[0] not in ".~"
    if not hub_id or path.suffix in (".npy", ".npz"):
        raise ValueError(f"there is no file or folder {name}")
    return "hub"


def _check_fields(kind: Kind, data: Data) -> None:
    given = [field for field in APPLIES["hub"] if getattr(data, field) is not None]
    useless = [field for field in given if field not in APPLIES.get(kind, ())]
    if useless:
        raise ValueError(
            f"{' and '.join(useless)} cannot be chosen for {data.name}: it is {_DESCRIPTION[kind]}"
        )


_DESCRIPTION: dict[Kind, str] = {
    "digits": "the bundled data set (write ./digits for a folder)",
    "emoji": "the bundled data set (write ./emoji for a folder)",
    "npy": "a .npy file",
    "npz": "an .npz file",
    "folder": "a folder of picture files",
    "saved": "a data set saved on disk",
    "hub": "a data set of the hub",
}


def _open(kind: Kind, data: Data) -> Opened:
    path = Path(data.name).expanduser()
    if kind == "digits":
        reader, labels = arrays.digits()
        classes = tuple(map(str, range(10)))
        return reader, labels if data.labels else None, classes if data.labels else None
    if kind == "emoji":
        return arrays.emoji(data.resolution or EMOJI_SIZE), None, None
    if kind == "npy":
        return arrays.open_npy(path), None, None
    if kind == "npz":
        found = arrays.open_npz(path, data.image_column, data.label_column, data.labels)
        return *found, None
    if kind == "folder":
        files = open_folder(path)
        return (files, *folder_labels(files)) if data.labels else (files, None, None)
    saved = kind == "saved"
    dataset = hugging_face.open_saved(path, data) if saved else hugging_face.open_hub(data)
    pictures = hugging_face.rows(dataset, data)
    if not data.labels:
        return pictures, None, None
    return pictures, *hugging_face.row_labels(dataset, data)


def _checked_labels(
    labels: np.ndarray | None, classes: tuple[str, ...] | None, count: int, name: str
) -> Int32[np.ndarray, "n"]:
    if labels is None:
        raise ValueError(
            f"{name} has no labels: leave labels unset, or give a folder whose subfolders are the "
            "classes, an .npz file with labels, or a Hugging Face data set with them"
        )
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise ValueError(
            f"the labels of {name} must be {count} whole numbers; got {labels.dtype} of shape "
            f"{labels.shape}"
        )
    low, high = int(labels.min()), int(labels.max())
    top = len(classes) - 1 if classes else np.iinfo(np.int32).max
    if low < 0 or high > top:
        raise ValueError(
            f"the labels of {name} must lie in 0..{top}; got {low} to {high}"
            + (", and -1 means that a picture has none" if low == -1 else "")
        )
    return labels.astype(np.int32)
