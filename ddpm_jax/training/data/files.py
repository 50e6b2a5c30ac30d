"""A folder of picture files."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ddpm_jax.training.data.pictures import Header, Pixels, decode, read_header

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
"""How picture files are named, in any case."""


@dataclass(frozen=True)
class PictureFiles:
    """Picture files under one folder, in the order of their names.

    Attributes:
        folder: the folder.
        names: path of each file from there, "/" between folders.
    """

    folder: Path
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def header(self, index: int) -> Header:
        """Size and channels of a file. Raises PictureError."""
        return read_header(self.folder / self.names[index])

    def read(self, index: int, channels: int) -> Pixels:
        """The pixels of a file. Raises PictureError."""
        return decode(self.folder / self.names[index], channels)

    def name_of(self, index: int) -> str:
        """The file's path."""
        return str(self.folder / self.names[index])


def open_folder(folder: Path) -> PictureFiles:
    """All picture files of a folder and its subfolders; links are followed, hidden names left out.

    Raises ValueError where there is none, and says what there is.
    """
    others: Counter[str] = Counter()
    names: list[str] = []
    for path in _walk(folder):
        if path.suffix.lower() in SUFFIXES:
            names.append(path.relative_to(folder).as_posix())
        else:
            others[path.suffix.lower() or "no suffix"] += 1
    if not names:
        there = ", ".join(f"{count} with {suffix}" for suffix, count in others.most_common(5))
        raise ValueError(
            f"{folder} holds no picture ({', '.join(SUFFIXES)}); "
            + (f"its files: {there}" if there else "it holds no file at all")
        )
    return PictureFiles(folder.absolute(), tuple(sorted(names)))


def _walk(folder: Path) -> Iterator[Path]:
    """Every file below; a folder that links lead back to is visited once."""
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


def folder_labels(files: PictureFiles) -> tuple[np.ndarray, tuple[str, ...]]:
    """Each file's class, and the classes' names: the first folder on its path, in order.

    Raises ValueError for files that lie in no subfolder.
    """
    loose = [name for name in files.names if "/" not in name]
    if loose:
        raise ValueError(
            f"labels are the names of subfolders, and {len(loose)} pictures lie directly in "
            f"{files.folder}, such as {loose[0]}"
        )
    owners = [name.split("/")[0] for name in files.names]
    classes = tuple(sorted(set(owners)))
    return np.searchsorted(np.array(classes), np.array(owners)), classes
