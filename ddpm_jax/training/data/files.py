"""A folder of image files."""

import os
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ddpm_jax.hub.files import listed
from ddpm_jax.training.data.decoding import FORMATS, Header, Pixels, decode, read_header
from ddpm_jax.training.data.settings import Data
from ddpm_jax.training.data.source import Opened

SUFFIXES = tuple(suffix for suffixes in FORMATS.values() for suffix in suffixes)
"""Suffixes of image files, in lower or upper case."""

SPLITS = {"train", "training", "test", "testing", "val", "valid", "validation", "eval"}
"""Usual names of folders that are parts of a data set and no classes."""


@dataclass(frozen=True)
class ImageFiles:
    """Image files under one folder, in the order of their names.

    Attributes:
        folder: the folder.
        names: path of each file from there, "/" between folders.
    """

    folder: Path
    names: tuple[str, ...]
    converts = True

    def __len__(self) -> int:
        return len(self.names)

    def header(self, index: int) -> Header:
        """Size and channels of a file. Raises UnreadableImage."""
        return read_header(self.folder / self.names[index])

    def read(self, index: int, channels: int) -> Pixels:
        """The pixels of a file. Raises UnreadableImage."""
        return decode(self.folder / self.names[index], channels)

    def name_of(self, index: int) -> str:
        """The file's path."""
        return str(self.folder / self.names[index])


def open_folder(data: Data) -> Opened:
    """The image files of a folder, and their classes."""
    files = find_files(Path(data.name).expanduser())
    return Opened(files, *folder_labels(files)) if data.labels else Opened(files)


def find_files(folder: Path) -> ImageFiles:
    """All image files of a folder and its subfolders. Links are followed, hidden files left out.

    A warning counts the other files. ValueError if there are no images.
    """
    others: Counter[str] = Counter()
    names: list[str] = []
    for path in _walk(folder):
        if path.suffix.lower() in SUFFIXES:
            names.append(path.relative_to(folder).as_posix())
        else:
            others[path.suffix.lower() or "no suffix"] += 1
    there = listed(f"{count} with {suffix}" for suffix, count in others.most_common())
    if not names:
        raise ValueError(
            f"{folder} holds no image ({', '.join(SUFFIXES)}); "
            + (f"its files: {there}" if there else "the folder is empty")
        )
    if others:
        warnings.warn(
            f"{folder}: {len(names)} images; other files are left out: {there}", stacklevel=4
        )
    return ImageFiles(folder.absolute(), tuple(sorted(names)))


def _walk(folder: Path) -> Iterator[Path]:
    """Every file below; a folder is visited once, also if links lead back to it."""
    seen: set[str] = set()
    for here, folders, files in os.walk(folder, followlinks=True, onerror=_raise):
        real = os.path.realpath(here)
        folders[:] = [] if real in seen else [name for name in folders if not _hidden(name)]
        if real not in seen:
            yield from (Path(here, name) for name in files if not _hidden(name))
        seen.add(real)


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _raise(error: OSError) -> None:
    raise error


def folder_labels(files: ImageFiles) -> tuple[np.ndarray, tuple[str, ...]]:
    """Each file's class, and the classes' names: the first folder on its path, in order.

    Raises ValueError for files in no subfolder.
    """
    loose = [name for name in files.names if "/" not in name]
    if loose:
        raise ValueError(
            f"labels are the names of subfolders, and {len(loose)} images are directly in "
            f"{files.folder}, such as {loose[0]}"
        )
    owners = [name.split("/")[0] for name in files.names]
    classes = tuple(sorted(set(owners)))
    if {name.lower() for name in classes} <= SPLITS:
        warnings.warn(
            f"the classes of {files.folder} are {' and '.join(classes)}: to train on one of these "
            "folders, give its path",
            stacklevel=4,
        )
    return np.searchsorted(np.array(classes), np.array(owners)), classes
