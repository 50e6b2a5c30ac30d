"""How a picture was made, written into the picture: the text chunks of its PNG file.

Everything that decides the pixels is in the settings; `image` says which of the seed's images the
file holds, and `versions` what computed it.
"""

import json
import os
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

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


def save_png(picture: Image.Image, path: Path, settings: Mapping[str, str], image: str) -> None:
    """Write `picture` with its provenance; the file appears under its name only when complete.

    Args:
        picture: what to save.
        path: the file, replaced if it exists.
        settings: text chunks by name, as a run's settings.
        image: the index of the picture in its run, or the indices of a grid.
    """
    info = PngInfo()
    for name, text in {
        "Software": SOFTWARE,
        **settings,
        "image": image,
        "versions": versions(),
    }.items():
        info.add_text(name, text)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        picture.save(beside, format="png", pnginfo=info)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def read_png(path: Path) -> dict[str, str]:
    """The provenance that `save_png` wrote.

    Raises:
        ValueError: if `path` is no PNG file, or none of ours.
    """
    try:
        with Image.open(path, formats=["PNG"]) as picture:
            text = {str(name): value for name, value in picture.info.items()}
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{path} cannot be read as a PNG picture: {error}") from error
    if text.get("Software") != SOFTWARE:
        raise ValueError(
            f"{path} does not say how it was made: it is no picture of ddpm-jax sample"
        )
    return {name: str(value) for name, value in text.items() if isinstance(value, str)}


def is_whole(path: Path) -> bool:
    """Whether the pixels of a PNG file can be read, all of them."""
    try:
        with Image.open(path, formats=["PNG"]) as picture:
            picture.load()
    except (OSError, SyntaxError, ValueError):
        return False
    return True


def is_begun(path: Path) -> bool:
    """Whether a file is the beginning of a PNG file, or empty, and no file of another kind.

    Raises:
        OSError: it cannot be read at all.
    """
    with path.open("rb") as content:
        start = content.read(len(SIGNATURE))
    return SIGNATURE.startswith(start)
