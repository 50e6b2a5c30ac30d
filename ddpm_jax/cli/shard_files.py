"""One file of a shard: the pixels of many images, their classes, and how they were made.

It is an .npz file, in the layout of guided-diffusion's tools:

    arr_0     (N, H, W, C) uint8, pixels
    arr_1     (N,) int64, classes; only of models with classes
    settings  text: JSON of the settings that PNG files have in their chunks
"""

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8

from ddpm_jax.cli import provenance
from ddpm_jax.hub.files import replacing
from ddpm_jax.hub.npz import FAULTS, read_npz

PIXELS, CLASSES, SETTINGS = "arr_0", "arr_1", "settings"
SIGNATURE = b"PK\x03\x04"


@dataclass(frozen=True, order=True)
class Shard:
    """Images `first` to `last`, both included."""

    first: int
    last: int

    @property
    def name(self) -> str:
        """Of its file, such as 00000-00999.npz."""
        return f"{self.first:05d}-{self.last:05d}.npz"

    @property
    def text(self) -> str:
        """Its indices, as the provenance has them."""
        return f"{self.first}-{self.last}"

    def __len__(self) -> int:
        """The number of its images."""
        return self.last - self.first + 1

    @property
    def numbers(self) -> range:
        """The indices of its images."""
        return range(self.first, self.last + 1)

    def overlaps(self, other: "Shard") -> bool:
        """Whether they have an image in common."""
        return self.first <= other.last and other.first <= self.last


def save_shard(
    path: Path,
    pixels: UInt8[np.ndarray, "n h w c"],
    classes: Int[np.ndarray, "n"] | None,
    settings: Mapping[str, str],
    numbers: str,
) -> None:
    """Writes the file. It appears only when it is complete.

    Args:
        path: the file, overwritten if it exists.
        pixels: of the images.
        classes: of the images, or None.
        settings: of the run.
        numbers: the indices of the images.
    """
    text = json.dumps(provenance.texts(settings, numbers))
    arrays = {PIXELS: pixels, SETTINGS: np.array(text)}
    if classes is not None:
        arrays[CLASSES] = classes
    with replacing(path) as partial:
        np.savez(partial, allow_pickle=False, **arrays)


def read_settings(path: Path) -> dict[str, str]:
    """The settings that `save_shard` wrote.

    Raises:
        ValueError: it cannot be read, or `save_shard` did not write it.
    """
    try:
        text = json.loads(str(read_npz(path, [SETTINGS])[SETTINGS]))
    except (OSError, ValueError, KeyError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read as a shard of images: {error}") from error
    if not isinstance(text, dict) or text.get("Software") != provenance.SOFTWARE:
        raise ValueError(f"{path} has no provenance: ddpm-jax sample did not write it")
    return {str(name): str(value) for name, value in text.items()}


def is_damaged(path: Path) -> bool:
    """Whether a file is the start of an .npz file, or one whose checksums do not hold.

    Raises:
        OSError: the file cannot be read.
    """
    if not provenance.is_truncated(path, SIGNATURE):
        return False  # a file of another format
    try:
        with zipfile.ZipFile(path) as file:
            return file.testzip() is not None
    except (OSError, *FAULTS):
        return True


def holds(path: Path, shard: Shard, classes: Int[np.ndarray, "n"] | None) -> bool:
    """Whether a file that is not damaged has pixels and classes for all images of a shard."""
    try:
        arrays = read_npz(path, [PIXELS, CLASSES])
    except (OSError, ValueError):
        return False
    pixels, found = arrays.get(PIXELS), arrays.get(CLASSES)
    if pixels is None or (found is None) != (classes is None):
        return False
    same = found is None or classes is None or np.array_equal(found, classes)
    return same and pixels.dtype == np.uint8 and pixels.ndim == 4 and len(pixels) == len(shard)
