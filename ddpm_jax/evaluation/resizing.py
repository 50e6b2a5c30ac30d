"""uint8 images to the input of a network: how images are resized decides what a number means.

The four common programs resize in three ways, and FID differs between them by up to some units.
Pixels p are 0 to 255. Pixel j of n' new ones lies at

    (1)  (j + 1/2) n / n' - 1/2, at least 0     "pytorch-fid"
    (2)  j n / n'                               "torch-fidelity", as TensorFlow 1 does

among the n old ones, and is interpolated linearly between its two neighbors, or is the last pixel
beyond it. There is no low-pass filter: larger images are aliased. Pillow's bicubic filter has one:

    (3)  "clean-fid": each channel alone in float32, clipped to 0...255, not rounded

The network's input is

    (4)  p / 127.5 - 1      "pytorch-fid"
    (5)  (p - 128) / 128    "torch-fidelity", "clean-fid"
    (6)  p / 255            "none", which takes images of the network's own size only

Reference: Parmar et al. 2022, On aliased resizing and surprising subtleties in GAN evaluation,
arXiv:2104.11222.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8
from PIL import Image

Size = tuple[int, int]
Pixels = UInt8[np.ndarray, "b h w c"]
Batches = Iterable[UInt8[np.ndarray, "..."]]
"""Of one shape but for the number of images."""

THREADS = 4
"""Threads that resize on the host; Pillow lets them run at once."""


class Resizing(ABC):
    """A way from uint8 images to a network's input, partly on the host and partly on the device.

    Attributes:
        name: what it is called.
    """

    name: ClassVar[str]

    def on_host(self, images: Pixels, size: Size) -> np.ndarray:
        """What is sent to the device: the images, unless they are resized on the host."""
        return images

    @abstractmethod
    def on_device(self, images: Array, size: Size) -> Float[Array, "b h2 w2 c"]:
        """The network's input."""

    def fault(self, shape: tuple[int, ...], size: Size) -> str | None:
        """Why images (h, w, c) cannot be resized, or None."""
        return None


class PytorchFid(Resizing):
    """Equations (1) and (4)."""

    name = "pytorch-fid"

    def on_device(self, images: Array, size: Size) -> Float[Array, "b h2 w2 c"]:
        """Resizes."""
        x = images.astype(jnp.float32) / 255
        places = (_from_middles(old, new) for old, new in zip(x.shape[1:3], size, strict=True))
        return 2 * interpolate(x, *places) - 1


class TorchFidelity(Resizing):
    """Equations (2) and (5)."""

    name = "torch-fidelity"

    def on_device(self, images: Array, size: Size) -> Float[Array, "b h2 w2 c"]:
        """Resizes."""
        x = images.astype(jnp.float32)
        places = (_from_corners(old, new) for old, new in zip(x.shape[1:3], size, strict=True))
        return (interpolate(x, *places) - 128) / 128


class CleanFid(Resizing):
    """Equations (3) and (5)."""

    name = "clean-fid"

    def on_host(self, images: Pixels, size: Size) -> Float[np.ndarray, "b h2 w2 c"]:
        """Resizes."""
        with ThreadPoolExecutor(THREADS) as threads:
            return np.stack(list(threads.map(lambda image: bicubic(image, size), images)))

    def on_device(self, images: Array, size: Size) -> Float[Array, "b h2 w2 c"]:
        """Changes the range."""
        return (images - 128) / 128


class Unresized(Resizing):
    """Equation (6)."""

    name = "none"

    def on_device(self, images: Array, size: Size) -> Float[Array, "b h2 w2 c"]:
        """Changes the range."""
        return images.astype(jnp.float32) / 255

    def fault(self, shape: tuple[int, ...], size: Size) -> str | None:
        """Another size."""
        if shape[:2] == size:
            return None
        return f"they have {shape[0]}x{shape[1]} pixels, and are not resized to {size[0]}x{size[1]}"


RESIZINGS: dict[str, Resizing] = {
    one.name: one for one in (PytorchFid(), TorchFidelity(), CleanFid(), Unresized())
}
"""All ways, by name."""


@dataclass(frozen=True)
class Places:
    """Where the new pixels of one axis lie: between `low` and `high`, `part` of the way."""

    low: Int[np.ndarray, "n"]
    high: Int[np.ndarray, "n"]
    part: Float[np.ndarray, "n"]


def interpolate(
    x: Float[Array, "b h w c"], rows: Places, columns: Places
) -> Float[Array, "b h2 w2 c"]:
    """Linear interpolation along the columns, then along the rows."""
    part = columns.part[None, None, :, None]
    x = x[:, :, columns.low] + (x[:, :, columns.high] - x[:, :, columns.low]) * part
    part = rows.part[None, :, None, None]
    return x[:, rows.low] + (x[:, rows.high] - x[:, rows.low]) * part


def bicubic(image: UInt8[np.ndarray, "h w c"], size: Size) -> Float[np.ndarray, "h2 w2 c"]:
    """Equation (3)."""
    planes: Iterable[np.ndarray] = np.moveaxis(image.astype(np.float32), -1, 0)
    height, width = size
    filtered = Image.Resampling.BICUBIC
    resized = [Image.fromarray(plane).resize((width, height), filtered) for plane in planes]
    return np.stack([np.asarray(plane) for plane in resized], -1).clip(0, 255)


def _from_middles(old: int, new: int) -> Places:
    """Equation (1), in float32 as torch."""
    scale = np.float32(old / new)
    middles = np.arange(new, dtype=np.float32) + np.float32(0.5)
    return _places(np.maximum(middles * scale - np.float32(0.5), 0), old)


def _from_corners(old: int, new: int) -> Places:
    """Equation (2), in float32."""
    return _places(np.arange(new, dtype=np.float32) * np.float32(old / new), old)


def _places(at: Float[np.ndarray, "n"], old: int) -> Places:
    low = np.minimum(at.astype(np.int32), old - 1)
    high = np.minimum(low + 1, old - 1)
    return Places(low, high, (at - low).astype(np.float32))
