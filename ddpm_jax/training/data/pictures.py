"""One picture file to pixels: decoding, its channels, its orientation, and 16-bit PNGs.

Pillow keeps only the upper byte of a colour PNG of 16 bits a channel. It can be told to unpack
the lower byte in its place, so such a file is decoded twice and the two bytes are put together.
"""

import io
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from jaxtyping import UInt8, UInt16
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from ddpm_jax.training.data.corrupt import PictureError

Pixels: TypeAlias = Image.Image | np.ndarray
"""A picture before it is resized: 8-bit PIL (mode L, RGB or RGBA), or an array (h, w, c) of
uint8 0..255, uint16 0..65535 or floats in [0, 1]."""

MODES = {1: "L", 3: "RGB", 4: "RGBA"}
"""PIL's mode for each number of channels that a picture file can give."""

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
"""What a picture's bytes may be, whatever its name ends in."""

GREY = ("1", "L", "I", "F")
LUMA = np.array([299, 587, 114]) / 1000
"""Weights of red, green and blue in a grey value (ITU-R 601, as Pillow has them)."""

ROTATED = (5, 6, 7, 8)
"""EXIF orientations that exchange height and width."""

BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""What Pillow's readers raise for files that are damaged, too large or no pictures."""


@dataclass(frozen=True)
class Header:
    """What is known of a picture without decoding it; channels as it would be converted to."""

    height: int
    width: int
    channels: int


def read_header(file: Path | bytes) -> Header:
    """Size and channels, from the first bytes only. Raises PictureError."""
    try:
        with _open(file) as image:
            width, height = image.size
            if _orientation(image) in ROTATED:
                width, height = height, width
            return Header(height, width, _channels(image))
    except BROKEN as error:
        raise PictureError(_reason(error)) from error


def decode(file: Path | bytes, channels: int) -> Pixels:
    """The picture upright, converted to 1, 3 or 4 channels. Raises PictureError."""
    try:
        with _open(file) as image:
            if _is_deep(image):
                return _convert_deep(_decode_deep(file, image), channels)
            image.load()
            turned = _orientation(image) is not None
            return _convert(ImageOps.exif_transpose(image) if turned else image, channels)
    except BROKEN as error:
        raise PictureError(_reason(error)) from error


def _open(file: Path | bytes) -> ImageFile.ImageFile:
    return Image.open(io.BytesIO(file) if isinstance(file, bytes) else file, formats=FORMATS)


def _orientation(image: ImageFile.ImageFile) -> int | None:
    """The EXIF orientation where the header holds one; asking Pillow could decode the picture."""
    if "exif" not in image.info or _is_deep(image):
        return None
    return image.getexif().get(0x0112)


def _channels(image: Image.Image) -> int:
    if image.has_transparency_data:
        return 4
    return 1 if image.mode.split(";")[0] in GREY else 3


def _convert(image: Image.Image, channels: int) -> Image.Image:
    mode = MODES[channels]
    if image.mode == mode:
        return image
    # Through RGBA, since Pillow warns of palettes with alpha that are asked for RGB.
    whole = image.convert("RGBA") if image.has_transparency_data else image
    return whole.convert(mode)


def _raw_mode(image: ImageFile.ImageFile) -> str:
    """How the bytes of a PNG are unpacked; empty for other files."""
    raw = image.tile[0][3] if len(image.tile) == 1 else None
    return raw if isinstance(raw, str) else ""


def _is_deep(image: ImageFile.ImageFile) -> bool:
    return image.mode.startswith("I") or _raw_mode(image).endswith(";16B")


def _decode_deep(
    file: Path | bytes, image: ImageFile.ImageFile
) -> UInt16[np.ndarray, "h w channels"]:
    """All 16 bits of a PNG: 1 to 4 channels."""
    if image.mode.startswith("I"):
        return np.asarray(image).astype(np.uint16)[..., None]
    if _raw_mode(image).startswith("LA"):  # Pillow has no lower byte of these: all four as RGBA
        image._mode = "RGBA"
        four = _unpacked(image, "RGBA")
        return _joined(four[..., 0::2], four[..., 1::2])
    upper = np.asarray(image)
    with _open(file) as again:
        return _joined(upper, _unpacked(again, f"{again.mode};16L"))


def _unpacked(image: ImageFile.ImageFile, raw_mode: str) -> UInt8[np.ndarray, "h w c"]:
    image.tile = [image.tile[0]._replace(args=raw_mode)]
    return np.asarray(image)


def _joined(
    upper: UInt8[np.ndarray, "h w c"], lower: UInt8[np.ndarray, "h w c"]
) -> UInt16[np.ndarray, "h w c"]:
    return upper.astype(np.uint16) << 8 | lower


def _convert_deep(
    pixels: UInt16[np.ndarray, "h w given"], channels: int
) -> UInt16[np.ndarray, "h w c"]:
    colours, alpha = pixels, np.full_like(pixels[..., :1], 65535)
    if pixels.shape[-1] in (2, 4):
        colours, alpha = pixels[..., :-1], pixels[..., -1:]
    if channels == 1 and colours.shape[-1] == 3:
        return (colours @ LUMA).round().astype(np.uint16)[..., None]
    if channels >= 3:
        colours = np.broadcast_to(colours, (*colours.shape[:2], 3))
    return np.concatenate([colours, alpha], -1) if channels == 4 else np.array(colours)


def _reason(error: BaseException) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not a picture, or damaged at its beginning"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
