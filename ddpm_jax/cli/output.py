"""Where drawn images go: one picture with a grid, or a folder with a file for each."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from ddpm_jax.cli import provenance
from ddpm_jax.cli.counted import counted
from ddpm_jax.cli.image_files import STRIP, Drawn, places, usable_files
from ddpm_jax.cli.unfinished import Unfinished
from ddpm_jax.images import make_grid


class Grid:
    """All images in one PNG file, replaced if it exists; the strips in a second one beside it.

    Until all are drawn, those of complete batches are kept in a hidden folder beside the file.
    """

    def __init__(
        self,
        path: Path,
        settings: Mapping[str, str],
        *,
        columns: int | None,
        every: int | None,
    ):
        """Raises OSError if the file cannot be written there."""
        if path.is_dir():
            raise ValueError(f"{path} is a folder: --out NAME.png must be a file")
        _writable(path.parent)
        self._path, self._settings = path, settings
        self._columns, self._strips = columns, every is not None
        self._unfinished = Unfinished(path, settings, every)
        self._drawn: dict[int, Drawn] = {}
        self._num = 0

    @property
    def if_interrupted(self) -> str:
        """What is left of a run that is interrupted now."""
        if not self._drawn:
            return "nothing was written"
        kept = counted(len(self._drawn), "image")
        return f"{kept} kept: the same command makes those that are missing"

    def missing(self, num: int) -> list[int]:
        """The indices to draw: all but those that a run of the same settings left unfinished."""
        self._num = num
        self._drawn = {one.number: one for one in self._unfinished.load() if one.number < num}
        return [i for i in range(num) if i not in self._drawn]

    def save(self, drawn: Sequence[Drawn]) -> None:
        """Take more images."""
        self._drawn |= {one.number: one for one in drawn}
        if len(self._drawn) < self._num:
            self._unfinished.save(drawn)

    def report(self, num: int, made: int, seconds: float) -> str:
        """Write the file, now that all images are there, and say where it is."""
        image, paths = f"0-{num - 1}", [self._path]
        drawn = [self._drawn[i] for i in range(num)]
        if self._strips:
            paths.append(self._path.with_name(f"{self._path.stem}{STRIP}.png"))
            tiles = [tile for one in drawn for tile in one.steps]
            strip = make_grid(tiles, len(tiles) // num)
            provenance.save_png(strip, paths[1], self._settings, image)
        grid = make_grid([one.picture for one in drawn], self._columns)
        provenance.save_png(grid, self._path, self._settings, image)
        self._unfinished.remove()
        return f"{_made(num, made, seconds)}: {' and '.join(str(path.resolve()) for path in paths)}"


class Folder:
    """A PNG file for each image, named by its index (00007.png) and written as it is made."""

    if_interrupted = "the same command makes the images that are missing"

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
        self._usable = usable_files(path, settings)

    def missing(self, num: int) -> list[int]:
        """The indices that have no file yet, or no strip where strips are asked for.

        Files that are damaged, or another image than their name says, count as missing; this says
        which they are.
        """
        there = {name for name, usable in self._usable.items() if usable}
        wanted = {file.name for i in range(num) for file in self._places(i)}
        for name in sorted(wanted & (self._usable.keys() - there)):
            print(
                f"ddpm-jax: {self._path / name} is damaged or another image: made again",
                file=sys.stderr,
            )
        return [i for i in range(num) if any(file.name not in there for file in self._places(i))]

    def save(self, drawn: Sequence[Drawn]) -> None:
        """Write each image under its own name."""
        for number, picture, steps in drawn:
            pictures = [picture, make_grid(steps, len(steps))] if self._strips else [picture]
            for file, content in zip(self._places(number), pictures, strict=True):
                provenance.save_png(content, file, self._settings, str(number))

    def report(self, num: int, made: int, seconds: float) -> str:
        """Say where the files are."""
        return f"{_made(num, made, seconds)}: {self._path.resolve()}{os.sep}"

    def _places(self, index: int) -> list[Path]:
        return places(self._path, index, strips=self._strips)


def _writable(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"{folder} cannot be written to")


def _made(num: int, made: int, seconds: float) -> str:
    there = f", {num - made} were there" if made < num else ""
    return f"{counted(made, 'image')} in {seconds:.1f} s{there}"
