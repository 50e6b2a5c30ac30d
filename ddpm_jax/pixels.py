"""uint8 images to the inputs of networks that look at pictures, on the host.

Each image is resized by Pillow's bicubic filter, and its pixels p in 0..255 become

    (p / 255 - mean) / std

for each channel. The numbers are those of transformers' image processors.
"""

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
"""Of the images that CLIP was trained with."""


def for_clip(images: UInt8[np.ndarray, "b h w 3"], side: int) -> Float[np.ndarray, "b s s 3"]:
    """The centers of images whose shorter side becomes `side`.

    Raises ValueError unless `images` are uint8 of shape (b, h, w, 3).
    """
    _, height, width, _ = _checked(images).shape
    short = min(height, width)
    rows, columns = (int(side * length / short) for length in (height, width))
    top, left = (rows - side) // 2, (columns - side) // 2
    resized = _resized(images, rows, columns)[:, top : top + side, left : left + side]
    return _normalized(resized, CLIP_MEAN, CLIP_STD)


def for_depth(images: UInt8[np.ndarray, "b h w 3"], side: int) -> Float[np.ndarray, "b s s 3"]:
    """Images of side x side, whatever their shape was, in [-1, 1].

    Raises ValueError unless `images` are uint8 of shape (b, h, w, 3).
    """
    return _normalized(_resized(_checked(images), side, side), (0.5,) * 3, (0.5,) * 3)


def _checked(images: UInt8[np.ndarray, "b h w 3"]) -> UInt8[np.ndarray, "b h w 3"]:
    array = np.asarray(images)
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[-1] != 3 or 0 in array.shape:
        raise ValueError(
            f"images must be uint8 of shape (batch, height, width, 3); got {array.dtype} of shape "
            f"{array.shape}"
        )
    return array


def _resized(
    images: UInt8[np.ndarray, "b h w 3"], rows: int, columns: int
) -> UInt8[np.ndarray, "b h2 w2 3"]:
    size, bicubic = (columns, rows), Image.Resampling.BICUBIC
    return np.stack([np.asarray(Image.fromarray(one).resize(size, bicubic)) for one in images])


def _normalized(
    images: UInt8[np.ndarray, "b h w 3"], mean: tuple[float, ...], std: tuple[float, ...]
) -> Float[np.ndarray, "b h w 3"]:
    return ((images / 255 - np.array(mean)) / np.array(std)).astype(np.float32)
