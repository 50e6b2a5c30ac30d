"""One image file to pixels: decoding, channels and orientation.

Pillow reads a colour PNG of 16 bits a channel as 8 bits. A grey one keeps its 16 bits.
"""

import io
import struct
import zlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeAlias

import numpy as np
from jaxtyping import UInt16
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from ddpm_jax.hub.files import first_line

Pixels: TypeAlias = Image.Image | np.ndarray
"""An image before it is resized: 8-bit PIL (mode L, RGB or RGBA), or an array (h, w, c) of
uint8 0..255, uint16 0..65535 or floats in [0, 1]."""

MODES = {1: "L", 3: "RGB", 4: "RGBA"}
"""PIL's mode for each number of channels that an image file can give."""

FORMATS = {
    "PNG": (".png", ".apng"),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "WEBP": (".webp",),
    "AVIF": (".avif", ".avifs"),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "DIB": (".dib",),
    "TIFF": (".tif", ".tiff"),
    "JPEG2000": (".jp2", ".j2k", ".jpx", ".jpf"),
    "PPM": (".pbm", ".pgm", ".ppm", ".pnm"),
    "TGA": (".tga",),
    "QOI": (".qoi",),
}
"""Pillow's names of the formats that are read, whatever the suffix of the file's name, and their
usual suffixes. Of several frames the first is read. A build of Pillow may lack some."""

GREY = ("1", "L", "I", "F")

ORIENTATION = 0x0112
"""The EXIF tag."""

LATE_IN_PNG = (b"eXIf", b"Raw profile type", b"XML:com.adobe.xmp")
"""Marks of a PNG whose orientation may be behind its pixels, which Pillow then has to decode."""

ROTATED = (5, 6, 7, 8)
"""EXIF orientations that exchange height and width."""

MOST_DEFLATED = 1032
"""Bytes that a byte of deflated data unpacks to at most (https://zlib.net/zlib_tech.html)."""

BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""What Pillow's readers raise for files that are damaged, too large or of another kind."""


class UnreadableImage(ValueError):
    """One image cannot be read."""


@dataclass(frozen=True)
class Header:
    """What the beginning of a file says: size, and the channels that hold it without loss."""

    height: int
    width: int
    channels: int


def read_header(file: Path | bytes) -> Header:
    """Size and channels, from the first bytes only. Raises UnreadableImage."""
    try:
        with _open(file) as image:
            width, height = image.size
            if _orientation(image, file) in ROTATED:
                width, height = height, width
            return Header(height, width, _channels(image))
    except BROKEN as error:
        raise UnreadableImage(_reason(error)) from error


def decode(file: Path | bytes, channels: int) -> Pixels:
    """The upright image, converted to 1, 3 or 4 channels. Raises UnreadableImage."""
    try:
        with _open(file) as image:
            _check_size(image, file)
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            if image.mode.startswith(("I", "F")):
                return _convert_grey16(_grey16(np.asarray(image)), channels)
            return _convert(image, channels)
    except BROKEN as error:
        raise UnreadableImage(_reason(error)) from error


def _check_size(image: ImageFile.ImageFile, file: Path | bytes) -> None:
    """Raises UnreadableImage for a PNG that states more pixels than its bytes can unpack to, before
    Pillow takes the memory of all of them.
    """
    size = len(file) if isinstance(file, bytes) else file.stat().st_size
    width, height = image.size
    if image.format == "PNG" and width * height > 8 * MOST_DEFLATED * size:  # of a bit each
        raise UnreadableImage(
            f"its header states {width}x{height} pixels in a file of {size} bytes"
        )


def _open(file: Path | bytes) -> ImageFile.ImageFile:
    return Image.open(io.BytesIO(file) if isinstance(file, bytes) else file, formats=_formats())


@cache
def _formats() -> tuple[str, ...]:
    """The formats that this Pillow reads."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _orientation(image: ImageFile.ImageFile, file: Path | bytes) -> int | None:
    """The orientation that the header does not yet have, in EXIF or XMP."""
    if image.format == "TIFF":  # Pillow's size is already that of the upright image
        return None
    if image.format == "PNG":  # `getexif` decodes it, unless the EXIF data are before the pixels
        content = file if isinstance(file, bytes) else file.read_bytes()
        if not any(mark in content for mark in LATE_IN_PNG):
            return None
    return image.getexif().get(ORIENTATION)


def _channels(image: Image.Image) -> int:
    if image.has_transparency_data:
        return 4
    return 1 if image.mode.split(";")[0] in GREY else 3


def _convert(image: Image.Image, channels: int) -> Image.Image:
    mode = MODES[channels]
    if image.mode == mode:
        return image
    # Through RGBA: Pillow warns of palettes with alpha that are converted to RGB.
    whole = image.convert("RGBA") if image.has_transparency_data else image
    return whole.convert(mode)


def _grey16(grey: np.ndarray) -> UInt16[np.ndarray, "h w"]:
    """Pixels of 32 bits as 16, if they fit."""
    if grey.dtype.kind == "f" or grey.min() < 0 or grey.max() > 65535:
        raise ValueError(
            f"its grey values are {grey.dtype} from {grey.min():g} to {grey.max():g}; accepted are "
            "8 and 16 bits: give such images as a .npy file, scaled to [0, 1]"
        )
    return grey.astype(np.uint16)


def _convert_grey16(grey: UInt16[np.ndarray, "h w"], channels: int) -> UInt16[np.ndarray, "h w c"]:
    """Grey of 16 bits as 1, 3 or 4 channels; the fourth is opaque."""
    pixels = np.repeat(grey[..., None], channels, -1)
    if channels == 4:
        pixels[..., 3] = 65535
    return pixels


def _reason(error: BaseException) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "it is not an image, or its beginning is damaged"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return first_line(error)
