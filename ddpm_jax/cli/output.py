"""The output of `sample`: one file with a grid, or a folder with one file for each image.

Folders of shards are in `shards`.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from ddpm_jax.cli import provenance
from ddpm_jax.cli.image_files import STRIP, Each, SampledImage, places, usable_files
from ddpm_jax.cli.share import ALL, Share
from ddpm_jax.images import make_grid, save_gif


def no_more(_number: int) -> Mapping[str, str]:
    """`Each` of images that have no settings of their own."""
    return {}


class Grid:
    """All images in one PNG file, overwritten if it exists; the strips in a second file."""

    if_interrupted = "nothing was written"

    def __init__(
        self,
        path: Path,
        settings: Mapping[str, str],
        *,
        columns: int | None,
        strips: bool,
        gif: bool = False,
    ):
        """With `gif` the strips are an animation too. Raises OSError if the file cannot be written
        there.
        """
        if path.is_dir():
            raise ValueError(f"{path} is a folder: --out NAME.png must be a file")
        check_writable(path.parent)
        self._path, self._settings = path, settings
        self._columns, self._strips, self._gif = columns, strips, gif
        self._sampled: list[SampledImage] = []

    def own(self, num: int) -> int:
        """How many of `num` images are made here: all."""
        return num

    def missing(self, num: int) -> list[int]:
        """The indices to generate: all."""
        return list(range(num))

    def save(self, sampled: Sequence[SampledImage]) -> None:
        """Store images for `finish`."""
        self._sampled += sampled

    def finish(self) -> str:
        """Write the file with all images; its path, and those of the strips."""
        num = len(self._sampled)
        numbers, paths = f"0-{num - 1}", [self._path]
        if self._strips:
            paths.append(self._path.with_name(f"{self._path.stem}{STRIP}.png"))
            tiles = [tile for one in self._sampled for tile in one.tiles]
            strip = make_grid(tiles, len(tiles) // num)
            provenance.save_png(strip, paths[1], self._settings, numbers)
            if self._gif:
                paths.append(paths[1].with_suffix(".gif"))
                steps = zip(*(one.tiles for one in self._sampled), strict=True)
                save_gif(paths[2], [make_grid(tiles, self._columns) for tiles in steps])
        grid = make_grid([one.image for one in self._sampled], self._columns)
        provenance.save_png(grid, self._path, self._settings, numbers)
        return ", ".join(str(path.resolve()) for path in paths)


class Folder:
    """One PNG file for each image, named by its index (00007.png), written after each batch."""

    if_interrupted = "run the same command again to make the missing images"

    def __init__(
        self,
        path: Path,
        settings: Mapping[str, str],
        *,
        strips: bool,
        each: Each = no_more,
        share: Share = ALL,
    ):
        """Creates the folder. `each` has settings of single images, `share` is what is made here.

        Raises:
            ValueError: it contains images made with other settings.
            OSError: it is a file, or not writable.
        """
        check_writable(path)
        self._path, self._settings, self._strips, self._each = path, settings, strips, each
        self._share = share
        self._usable = usable_files(path, settings, each, share)

    def own(self, num: int) -> int:
        """How many of `num` images are made here."""
        return len(self._own(num))

    def missing(self, num: int) -> list[int]:
        """The share's indices without a file, or without a strip if strips are requested.

        A damaged file, or one whose image does not match its name, counts as missing. Each is
        reported on stderr.
        """
        present = {name for name, usable in self._usable.items() if usable}
        own = self._own(num)
        wanted = {file.name for i in own for file in self._places(i)}
        for name in sorted(wanted & (self._usable.keys() - present)):
            print(
                f"ddpm-jax: {self._path / name} is damaged or another image: it is made again",
                file=sys.stderr,
            )
        return [i for i in own if any(file.name not in present for file in self._places(i))]

    def save(self, sampled: Sequence[SampledImage]) -> None:
        """Write each image to its own file."""
        for one in sampled:
            images = [one.image]
            if self._strips:
                images.append(make_grid(one.tiles, len(one.tiles)))
            for file, content in zip(self._places(one.number), images, strict=True):
                own = {**self._settings, **(self._each(one.number) or {})}
                provenance.save_png(content, file, own, str(one.number))

    def finish(self) -> str:
        """The path of the folder."""
        return f"{self._path.resolve()}{os.sep}"

    def _own(self, num: int) -> list[int]:
        return [i for i in range(num) if self._share.owns(i)]

    def _places(self, index: int) -> list[Path]:
        return places(self._path, index, strips=self._strips)


def check_writable(folder: Path) -> None:
    """Makes a folder; raises OSError if files cannot be written into it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise NotADirectoryError(f"{folder} is a file, not a folder") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"{folder} is not writable")
