"""The images of a grid that is not complete yet, kept beside it so that a killed run can go on."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from ddpm_jax.cli import provenance
from ddpm_jax.cli.image_files import Drawn, places, usable_files
from ddpm_jax.images import make_grid


class Unfinished:
    """A hidden folder beside a grid, `.NAME.png.partial`; it is there only while images are in it.

    Args:
        grid: the file that the images are for.
        settings: what decides their pixels.
        every: after how many evaluations their strips have a step; None: they have no strips.
    """

    def __init__(self, grid: Path, settings: Mapping[str, str], every: int | None):
        self._folder = grid.with_name(f".{grid.name}.partial")
        self._strips = every is not None
        self._settings = {**settings, **({"save_every": str(every)} if self._strips else {})}

    def load(self) -> list[Drawn]:
        """The images that an earlier run left; those of a run of other settings are removed."""
        if not self._folder.is_dir():
            return []
        try:
            there = usable_files(self._folder, self._settings)
        except ValueError:
            self.remove()
            return []
        usable = {name for name, whole in there.items() if whole}
        numbers = sorted(int(name.removesuffix(".png")) for name in usable if "-" not in name)
        files = {i: places(self._folder, i, strips=self._strips) for i in numbers}
        return [_read(i, *files[i]) for i in numbers if {file.name for file in files[i]} <= usable]

    def save(self, drawn: Sequence[Drawn]) -> None:
        """Keep more images."""
        self._folder.mkdir(exist_ok=True)
        for number, picture, steps in drawn:
            pictures = [picture]
            if self._strips:
                pictures.append(make_grid(steps, len(steps), padding=0, scale=1))
            files = places(self._folder, number, strips=self._strips)
            for file, content in zip(files, pictures, strict=True):
                provenance.save_png(content, file, self._settings, str(number))

    def remove(self) -> None:
        """Remove the folder and all that is in it."""
        shutil.rmtree(self._folder, ignore_errors=True)


def _read(number: int, file: Path, strip: Path | None = None) -> Drawn:
    picture = _open(file)
    if strip is None:
        return Drawn(number, picture, ())
    row, (width, height) = _open(strip), picture.size
    lefts = range(0, row.width, width)
    return Drawn(number, picture, [row.crop((x, 0, x + width, height)) for x in lefts])


def _open(file: Path) -> Image.Image:
    with Image.open(file) as picture:
        return picture.copy()
