"""Files with one image each, named by its index: `00007.png`, and `00007-steps.png` for its strip.

Which settings made a file stands in the file, so that a later run knows what it may keep.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from ddpm_jax.cli import provenance

STRIP = "-steps"
NOT_COMPARED = {"Software", "image", "versions", "model", "revision", "variant"}
NUMBERED = re.compile(rf"(\d{{5,}})({STRIP})?\.png")


class SampledImage(NamedTuple):
    """An image of a run, and how it formed.

    Attributes:
        number: its index among the seed's images.
        image: it, as PIL has it.
        steps: predictions of it during the run, the last being the image; or nothing.
    """

    number: int
    image: Image.Image
    steps: Sequence[Image.Image]


def places(folder: Path, index: int, *, strips: bool) -> list[Path]:
    """The files of an image: its own, and that of its strip."""
    return [folder / f"{index:05d}{end}.png" for end in (("", STRIP) if strips else ("",))]


def usable_files(folder: Path, settings: Mapping[str, str]) -> dict[str, bool]:
    """The image files in a folder by name: whether each is whole, and the image its name says.

    Raises:
        ValueError: one was made by other settings, or by another program.
    """
    files = [file for file in folder.iterdir() if NUMBERED.fullmatch(file.name)]
    return {file.name: _usable(file, settings) for file in files}


def _usable(file: Path, settings: Mapping[str, str]) -> bool:
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
