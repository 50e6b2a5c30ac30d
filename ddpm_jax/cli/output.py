"""Where drawn images go: one picture with a grid, or a folder with a file for each."""

import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from ddpm_jax.cli import provenance
from ddpm_jax.images import make_grid

STRIP = "-steps"
NOT_COMPARED = {"Software", "image", "versions", "model", "revision", "variant"}
NUMBERED = re.compile(rf"(\d{{5,}})({STRIP})?\.png")


class Drawn(NamedTuple):
    """An image of a run, and how it came about.

    Attributes:
        number: its index among the seed's images.
        picture: the image.
        steps: predictions of it during the run, the last being the image; or nothing.
    """

    number: int
    picture: Image.Image
    steps: Sequence[Image.Image]


class Grid:
    """All images in one PNG file, replaced if it exists; the strips in a second one beside it."""

    IF_INTERRUPTED = "nothing was written"

    def __init__(
        self, path: Path, settings: Mapping[str, str], *, columns: int | None, strips: bool
    ):
        """Raises OSError if the file cannot be written there."""
        if path.is_dir():
            raise ValueError(f"{path} is a folder: --out NAME.png must be a file")
        _writable(path.parent)
        self._path, self._settings = path, settings
        self._columns, self._strips = columns, strips
        self._drawn: list[Drawn] = []

    def missing(self, num: int) -> list[int]:
        """The indices to draw: all."""
        return list(range(num))

    def save(self, drawn: Sequence[Drawn]) -> None:
        """Take more images."""
        self._drawn += drawn

    def report(self, num: int, made: int, seconds: float) -> str:
        """Write the file, now that all images are there, and say where it is."""
        image = f"0-{num - 1}"
        paths = [self._path]
        if self._strips:
            paths.append(self._path.with_name(f"{self._path.stem}{STRIP}.png"))
            tiles = [tile for one in self._drawn for tile in one.steps]
            strip = make_grid(tiles, len(tiles) // num)
            provenance.save_png(strip, paths[1], self._settings, image)
        grid = make_grid([one.picture for one in self._drawn], self._columns)
        provenance.save_png(grid, self._path, self._settings, image)
        where = " and ".join(str(path.resolve()) for path in paths)
        return f"{_images(made)} in {seconds:.1f} s: {where}"


class Folder:
    """A PNG file for each image, named by its index (00007.png) and written as it is made."""

    IF_INTERRUPTED = "the same command makes the images that are missing"

    def __init__(self, path: Path, settings: Mapping[str, str], *, strips: bool):
        """Makes the folder.

        Raises:
            ValueError: it holds images of other settings.
            OSError: it cannot be written to.
        """
        if path.exists() and not path.is_dir():
            raise ValueError(f"{path} is a file: --out takes a folder, or a name ending in .png")
        _writable(path)
        self._path, self._settings, self._strips = path, settings, strips
        self._usable = {file.name: _usable(file, settings) for file in self._files()}

    def missing(self, num: int) -> list[int]:
        """The indices that have no file yet, or no strip where strips are asked for.

        Files that are damaged, or another image than their name says, count as missing; this says
        which they are.
        """
        there = {name for name, usable in self._usable.items() if usable}
        wanted = {file.name for i in range(num) for file in self._names(i)}
        for name in sorted(wanted & (self._usable.keys() - there)):
            print(
                f"ddpm-jax: {self._path / name} is damaged or another image: made again",
                file=sys.stderr,
            )
        return [i for i in range(num) if any(file.name not in there for file in self._names(i))]

    def save(self, drawn: Sequence[Drawn]) -> None:
        """Write each image under its own name."""
        for number, picture, steps in drawn:
            pictures = [picture, make_grid(steps, len(steps))] if self._strips else [picture]
            for file, content in zip(self._names(number), pictures, strict=True):
                provenance.save_png(content, file, self._settings, str(number))

    def report(self, num: int, made: int, seconds: float) -> str:
        """Say where the files are."""
        there = f", {num - made} were there" if made < num else ""
        return f"{_images(made)} in {seconds:.1f} s{there}: {self._path.resolve()}{os.sep}"

    def _names(self, index: int) -> list[Path]:
        ends = ("", STRIP) if self._strips else ("",)
        return [self._path / f"{index:05d}{end}.png" for end in ends]

    def _files(self) -> Iterator[Path]:
        return (file for file in self._path.iterdir() if NUMBERED.fullmatch(file.name))


def _usable(file: Path, settings: Mapping[str, str]) -> bool:
    """Whether `file` is whole and the image that its name says.

    Raises:
        ValueError: it was made by other settings, or by another program.
    """
    try:
        found = provenance.read_png(file)
    except ValueError:
        if provenance.is_whole(file) or not provenance.is_begun(file):
            raise
        return False
    _same_settings(file, found, settings)
    number = NUMBERED.fullmatch(file.name)
    right = number is not None and found.get("image") == str(int(number[1]))
    return right and provenance.is_whole(file)


def _same_settings(file: Path, found: Mapping[str, str], settings: Mapping[str, str]) -> None:
    """Raises ValueError unless `found`, of `file`, is these settings, on whatever versions.

    What a model is called does not count: its config and its weights do.
    """
    names = sorted((set(found) | set(settings)) - NOT_COMPARED)
    differing = [
        f"{name} {found.get(name, 'not given')} and not {settings.get(name, 'not given')}"
        for name in names
        if found.get(name) != settings.get(name)
    ]
    if differing:
        raise ValueError(
            f"{file} was made with {'; '.join(differing)}: give another folder to --out"
        )


def _writable(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"{folder} cannot be written to")


def _images(count: int) -> str:
    return f"{count} image{'' if count == 1 else 's'}"
