"""How an image was made, written into the file: the text chunks of its PNG file.

Everything that decides the pixels is in the settings; `image` says which of the seed's images the
file holds, and `versions` what computed it.
"""

import json
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ddpm_jax.hub.files import replacing

SOFTWARE = "ddpm_jax"
SIGNATURE = b"\x89PNG\r\n\x1a\n"
PACKAGES = ("ddpm-jax", "jax", "jaxlib", "flax", "numpy")


def versions() -> str:
    """The versions of this package, of what it computes with and of Python, as JSON."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:  # run from a source tree that is not installed
            found[package] = "unknown"
    return json.dumps(found)


def save_png(image: Image.Image, path: Path, settings: Mapping[str, str], numbers: str) -> None:
    """Write `image` with its provenance; the file appears under its name only when complete.

    Args:
        image: what to save.
        path: the file, replaced if it exists.
        settings: text chunks by name, as a run's settings.
        numbers: the index of the image in its run, or the indices of a grid.
    """
    info = PngInfo()
    for name, text in {
        "Software": SOFTWARE,
        **settings,
        "image": numbers,
        "versions": versions(),
    }.items():
        info.add_text(name, text)
    with replacing(path) as partial:
        image.save(partial, format="png", pnginfo=info)


def read_png(path: Path) -> dict[str, str]:
    """The provenance that `save_png` wrote.

    Raises:
        ValueError: `path` is not a PNG file, or not one of ours.
    """
    try:
        with Image.open(path, formats=["PNG"]) as image:
            text = {str(name): value for name, value in image.info.items()}
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{path} cannot be read as a PNG image: {error}") from error
    if text.get("Software") != SOFTWARE:
        raise ValueError(f"{path} does not say how it was made: ddpm-jax sample did not write it")
    return {name: str(value) for name, value in text.items() if isinstance(value, str)}


def is_whole(path: Path) -> bool:
    """Whether the pixels of a PNG file can be read, all of them."""
    try:
        with Image.open(path, formats=["PNG"]) as image:
            image.load()
    except (OSError, SyntaxError, ValueError):
        return False
    return True


def is_begun(path: Path) -> bool:
    """Whether a file is the beginning of a PNG file, or empty, and not a file of another kind.

    Raises:
        OSError: it cannot be read at all.
    """
    with path.open("rb") as content:
        start = content.read(len(SIGNATURE))
    return SIGNATURE.startswith(start)
