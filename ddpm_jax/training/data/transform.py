"""From pixels to the network's input: resize, crop, flip, and the range [-1, 1].

Sizes follow torchvision's Resize and CenterCrop: the longer side is int(resolution * long / short)
and a center crop begins at the rounded half of the margin.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from ddpm_jax.training.data.decoding import Pixels
from ddpm_jax.training.data.settings import Crop

BILINEAR = Image.Resampling.BILINEAR  # Pillow's is antialiased


@dataclass(frozen=True)
class Transform:
    """Resize, crop and flip; see the fields of `Data`."""

    resolution: int | None
    crop: Crop
    flip: bool

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of an image of this size after the transform."""
        if self.resolution is None:
            return height, width
        if self.crop != "none":
            return self.resolution, self.resolution
        return resized(height, width, self.resolution)

    def __call__(self, pixels: Pixels, words: Sequence[int] | None) -> np.ndarray:
        """(h, w, c), uint8 or float32 in [0, 1].

        Args:
            pixels: the image.
            words: three random numbers of 64 bits: the first decides the flip, the others the
                place of a random crop. Without them the crop is at the center, and nothing is
                flipped.
        """
        image = self._cropped(resize(pixels, self.resolution), words)
        if self.flip and words is not None and words[0] >> 63:
            return image[:, ::-1]
        return image

    def _cropped(self, image: np.ndarray, words: Sequence[int] | None) -> np.ndarray:
        side = self.resolution
        if side is None or self.crop == "none":
            return image
        margins = [size - side for size in image.shape[:2]]
        if self.crop == "random" and words is not None:
            top, left = (
                (margin + 1) * word >> 64 for margin, word in zip(margins, words[1:], strict=True)
            )
        else:
            top, left = (round(margin / 2) for margin in margins)
        return image[top : top + side, left : left + side]


def resized(height: int, width: int, shorter: int) -> tuple[int, int]:
    """Height and width after resizing the shorter side to `shorter`."""
    if height <= width:
        return shorter, int(shorter * width / height)
    return int(shorter * height / width), shorter


def resize(pixels: Pixels, shorter: int | None) -> np.ndarray:
    """(h, w, c), uint8 or float32 in [0, 1]; not resized if `shorter` is None."""
    if isinstance(pixels, Image.Image):
        return _resize_image(pixels, shorter)
    return _resize_array(unit(pixels), shorter)


def _resize_image(image: Image.Image, shorter: int | None) -> UInt8[np.ndarray, "h w c"]:
    width, height = image.size
    if shorter is not None and shorter != min(width, height):
        height, width = resized(height, width, shorter)
        image = image.resize((width, height), BILINEAR)
    array = np.asarray(image)
    return array[..., None] if array.ndim == 2 else array


def _resize_array(array: np.ndarray, shorter: int | None) -> np.ndarray:
    """Each channel on its own: Pillow has no floats of several channels, and a fourth channel need
    not be alpha.
    """
    height, width, channels = array.shape
    if shorter is None or shorter == min(width, height):
        return array
    height, width = resized(height, width, shorter)
    planes = (Image.fromarray(np.ascontiguousarray(array[..., c])) for c in range(channels))
    return np.stack([np.asarray(p.resize((width, height), BILINEAR)) for p in planes], -1)


def unit(array: np.ndarray) -> np.ndarray:
    """uint8 unchanged, uint16 and floats as float32 in [0, 1]."""
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind == "u":
        return (array / np.float64(65535)).astype(np.float32)
    return array.astype(np.float32)


def to_range(array: np.ndarray) -> Float32[np.ndarray, "..."]:
    """float32 in [-1, 1], from uint8 0..255 or floats in [0, 1]."""
    half = np.float32(127.5 if array.dtype == np.uint8 else 0.5)
    scaled = np.divide(array, half, dtype=np.float32)
    scaled -= np.float32(1)
    return np.clip(scaled, -1, 1, out=scaled)  # resizing may exceed 1 by a rounding
