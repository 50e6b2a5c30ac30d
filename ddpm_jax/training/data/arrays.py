"""Images in one array: scikit-learn's digits, .npy and .npz files."""

from pathlib import Path
from typing import Any

import numpy as np

from ddpm_jax.extras import check_installed
from ddpm_jax.hub.npz import FAULTS
from ddpm_jax.training.data.decoding import Header, Pixels, UnreadableImage
from ddpm_jax.training.data.settings import Data
from ddpm_jax.training.data.source import Opened

IMAGE_NAMES = ("image", "images", "x", "arr_0")
LABEL_NAMES = ("label", "labels", "y")
PROBED = 64
"""Images of floats whose range is checked when the file is opened, evenly spaced: reading all of a
large file would take minutes. The others are checked when they are read."""


class ArrayImages:
    """Images in one array (N, H, W) or (N, H, W, C). Other processes read the file themselves.

    Raises ValueError for other shapes and types, and for floats outside [0, 1].
    """

    converts = False

    def __init__(self, images: np.ndarray, name: str, file: tuple[Path, str | None] | None = None):
        check_images(images, name)
        self._images = images
        self._name = name
        self._file = file

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        if self._file is not None:
            del state["_images"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self._file is not None:
            self._images = load(*self._file)

    def __len__(self) -> int:
        return len(self._images)

    def header(self, index: int) -> Header:
        """Size and channels, the same for all."""
        height, width = self._images.shape[1:3]
        return Header(height, width, 1 if self._images.ndim == 3 else self._images.shape[3])

    def read(self, index: int, channels: int) -> Pixels:
        """One image (h, w, c). UnreadableImage for floats outside [0, 1]."""
        image = np.asarray(self._images[index])
        if image.dtype.kind == "f" and (outside := _outside(image)):
            raise UnreadableImage(outside)
        return image[..., None] if image.ndim == 2 else image

    def name_of(self, index: int) -> str:
        """Its place in the array."""
        return f"image {index} of {self._name}"


def check_images(images: np.ndarray, name: str) -> None:
    """ValueError unless the array holds images as `Data.name` says."""
    dtype = images.dtype
    if not (dtype.kind == "f" or (dtype.kind == "u" and dtype.itemsize <= 2)):
        raise ValueError(
            f"{name} holds {dtype}; images are uint8 (0..255), uint16 (0..65535) or floats "
            "in [0, 1]"
        )
    if images.ndim not in (3, 4) or 0 in images.shape:
        raise ValueError(
            f"{name} has shape {images.shape}; images are (N, H, W) or (N, H, W, C), at least one"
        )
    if images.ndim == 4 and images.shape[1] <= 4 < 8 <= images.shape[3]:
        raise ValueError(
            f"{name} has shape {images.shape}, channels first; move them last: "
            "array.transpose(0, 2, 3, 1)"
        )
    if dtype.kind == "f":
        probe = np.unique(np.linspace(0, len(images) - 1, PROBED).astype(int))
        if outside := _outside(np.stack([images[index] for index in probe])):
            raise ValueError(f"{name}: {outside}")


def _outside(image: np.ndarray) -> str:
    """Why the range of floats is wrong; empty if it is right."""
    low, high = float(image.min()), float(image.max())
    if min(low, 1 - high) >= 0:  # false for NaN
        return ""
    return f"floats must lie in [0, 1], got {low:g} to {high:g}"


def open_digits(data: Data) -> Opened:
    """scikit-learn's handwritten digits, 1,797 of 8x8 grey pixels, with their labels."""
    check_installed(("sklearn",), "the digits data set")
    from sklearn.datasets import load_digits

    values, labels = load_digits(return_X_y=True)
    sixteenths = np.asarray(values).reshape(-1, 8, 8)
    images = ArrayImages((sixteenths * (255 / 16)).round().astype(np.uint8), "digits")
    if not data.labels:
        return Opened(images)
    return Opened(images, np.asarray(labels), tuple(map(str, range(10))))


def load(path: Path, member: str | None) -> np.ndarray:
    """A .npy file, memory-mapped, or one array of an .npz file."""
    try:
        if member is None:
            # As a plain array: its rows are ten times faster to read than a memmap's.
            return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
        with np.load(path, allow_pickle=False) as arrays:
            return arrays[member]
    except FAULTS as error:
        raise ValueError(f"{path} cannot be read as an array of numbers: {error}") from error


def open_npy(data: Data) -> Opened:
    """The images of a .npy file."""
    path = Path(data.name).expanduser()
    return Opened(ArrayImages(load(path, None), str(path), (path, None)))


def open_npz(data: Data) -> Opened:
    """The images of an .npz file, and its labels."""
    path = Path(data.name).expanduser()
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found = arrays.files
    except FAULTS as error:
        raise ValueError(f"{path} cannot be read as an .npz file: {error}") from error
    name = _member(path, found, data.image_column, IMAGE_NAMES, "image_column")
    images = ArrayImages(load(path, name), f"{path} ({name})", (path, name))
    if not data.labels:
        return Opened(images)
    label_name = _member(path, found, data.label_column, LABEL_NAMES, "label_column")
    return Opened(images, load(path, label_name))


def _member(
    path: Path, found: list[str], given: str | None, usual: tuple[str, ...], option: str
) -> str:
    wanted = usual if given is None else (given,)
    for name in wanted:
        if name in found:
            return name
    raise ValueError(
        f"{path} holds {', '.join(found) or 'nothing'}, not {' or '.join(wanted)}: "
        f"give the array's name as {option}"
    )
