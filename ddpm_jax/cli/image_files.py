"""Files with one image each, named by index: `00007.png`, and `00007-steps.png` for its strip.

Each file stores the settings of its run, so a later run knows which files it can reuse.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from ddpm_jax.cli import provenance
from ddpm_jax.cli.share import Share

STRIP = "-steps"
NOT_COMPARED = {"Software", "image", "versions", "model", "revision", "variant"}
NUMBERED = re.compile(rf"(\d{{5,}})({STRIP})?\.png")


Each: TypeAlias = Callable[[int], Mapping[str, str] | None]
"""The settings of one image by its number; None for a number that is not made."""


class SampledImage(NamedTuple):
    """An image of a run, and its predictions during the run.

    Attributes:
        number: its index among the seed's images.
        pixels: of the image.
        steps: pixels of predictions during the run. The last is the image. May be empty.
    """

    number: int
    pixels: UInt8[np.ndarray, "h w c"]
    steps: Sequence[UInt8[np.ndarray, "h w c"]]

    @property
    def image(self) -> Image.Image:
        """The PIL image."""
        return _image(self.pixels)

    @property
    def tiles(self) -> list[Image.Image]:
        """The PIL images of `steps`."""
        return [_image(one) for one in self.steps]


def _image(pixels: UInt8[np.ndarray, "h w c"]) -> Image.Image:
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def places(folder: Path, index: int, *, strips: bool) -> list[Path]:
    """The files of an image: the image, and its strip if `strips`."""
    return [folder / f"{index:05d}{end}.png" for end in (("", STRIP) if strips else ("",))]


def usable_files(
    folder: Path, settings: Mapping[str, str], each: Each, share: Share
) -> dict[str, bool]:
    """For each image file in a folder, whether it is complete and its index matches its name.

    Files of images that are not made, or by another process, are left alone.

    Raises:
        ValueError: a file was made with other settings or by another program.
    """
    files = [file for file in folder.iterdir() if NUMBERED.fullmatch(file.name)]
    numbers = {file: int(NUMBERED.sub(r"\1", file.name)) for file in files}
    own = {file: each(number) for file, number in numbers.items() if share.owns(number)}
    return {
        file.name: _usable(file, numbers[file], {**settings, **one})
        for file, one in own.items()
        if one is not None
    }


def _usable(file: Path, number: int, settings: Mapping[str, str]) -> bool:
    try:
        found = provenance.read_png(file)
    except ValueError:
        if provenance.is_complete(file) or not provenance.is_truncated(file):
            raise
        return False
    same_settings(file, found, settings)
    return found.get("image") == str(number) and provenance.is_complete(file)


def same_settings(file: Path, found: Mapping[str, str], settings: Mapping[str, str]) -> None:
    """Raises ValueError unless `found`, the settings of `file`, equals `settings`.

    Package versions and the model's name are not compared. Its config and weights are.
    """
    names = sorted((set(found) | set(settings)) - NOT_COMPARED)
    differing = [
        f"{name} {found.get(name, 'not given')}, not {settings.get(name, 'not given')}"
        for name in names
        if found.get(name) != settings.get(name)
    ]
    if differing:
        raise ValueError(
            f"{file} was made with {'; '.join(differing)}: pass another folder to --out"
        )
