"""Emoji as pictures: all of a colour font, small, on white.

Which emoji there are says the `emoji` package: those of Unicode's list that are "fully qualified",
sequences (families, skin tones, flags, keycaps) included. Those that the font draws as one picture
are kept, and of pictures that are alike (the flags of France and of Saint Martin) the first.

The font is Noto Color Emoji with its bitmaps of 136 x 128 pixels, licensed under the SIL Open Font
License 1.1. It is not part of this package; Debian and Ubuntu have it as fonts-noto-color-emoji.
"""

import hashlib
import importlib
import math
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import PIL
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont, ImageOps, features
from tqdm import tqdm

from ddpm_jax.training.data.needs import missing
from ddpm_jax.user_cache import user_cache

FONT_NAME = "NotoColorEmoji.ttf"
FONT_VARIABLE = "DDPM_JAX_EMOJI_FONT"
STRIKE = 109
"""The only size that the font has bitmaps of, in pixels to the em."""

SIZES = range(8, 129)
"""Sides that pictures can have: the font's bitmaps are made smaller, never larger."""

A_FACE, NO_CHARACTER = "\U0001f600", "\U0010ffff"
RENDERING = 1
"""To be raised when the code below draws other pictures, so that old files are not read."""


def emoji_images(
    size: int, font: str | os.PathLike[str] | None = None
) -> UInt8[np.ndarray, "n size size 3"]:
    """All emoji that the font has, in the order of their code points.

    A margin of 1/34 of the side is left around the largest. The pictures are drawn once (seconds)
    and then kept in the user's cache folder, `~/.cache/ddpm_jax/emoji`.

    Args:
        size: side in pixels, 8 to 128.
        font: the font's file. Default: the one that the environment variable DDPM_JAX_EMOJI_FONT
            names, else NotoColorEmoji.ttf in the system's or the user's font folders.

    Raises:
        FileNotFoundError: there is no font; says how to get it.
        ImportError: the package `emoji` is missing, or Pillow has no text layout for sequences.
        ValueError: size out of range, or a font without colour bitmaps of the right size.
    """
    if size not in SIZES:
        raise ValueError(f"size must be in {SIZES[0]}..{SIZES[-1]}, got {size}")
    path = find_font(font)
    texts = emoji_list()
    kept = _cache_file(path, texts, size)
    images = _read(kept, size)
    if images is None:
        images = render(texts, load_font(path), size)
        _keep(kept, images)
    return images


def find_font(font: str | os.PathLike[str] | None = None) -> Path:
    """The font's file: the one given, or the variable's, or the first in the font folders."""
    named = font or os.environ.get(FONT_VARIABLE)
    if named:
        if Path(named).is_file():
            return Path(named)
        source = "" if font else f" (the environment variable {FONT_VARIABLE})"
        raise FileNotFoundError(f"there is no font file {named}{source}")
    folders = _font_folders()
    for folder in folders:
        for path in sorted(folder.rglob(FONT_NAME)):
            return path
    raise FileNotFoundError(
        f"the emoji data need the font {FONT_NAME}, which is in none of "
        f"{', '.join(map(str, folders))}. On Debian and Ubuntu: apt install "
        f"fonts-noto-color-emoji. Elsewhere: let the environment variable {FONT_VARIABLE} be the "
        "path of its bitmap version (not the one named COLRv1)"
    )


def _font_folders() -> list[Path]:
    """Where Linux and macOS keep fonts, the user's own first."""
    home = Path.home()
    data_home = os.environ.get("XDG_DATA_HOME") or home / ".local/share"
    data = (os.environ.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share").split(":")
    shared = [Path(folder) / "fonts" for folder in [data_home, *data] if folder]
    mac = [home / "Library/Fonts", Path("/Library/Fonts")]
    return list(dict.fromkeys([shared[0], home / ".fonts", *shared[1:], *mac]))


def emoji_list() -> list[str]:
    """All fully qualified emoji, sorted by code points."""
    try:
        # By name: a type checker may well lack it, and its own typing is not needed here.
        known = importlib.import_module("emoji")
    except ImportError:
        raise missing("emoji", "data of emoji") from None
    qualified = known.STATUS["fully_qualified"]
    return sorted(text for text, about in known.EMOJI_DATA.items() if about["status"] == qualified)


def load_font(path: Path) -> ImageFont.FreeTypeFont:
    """The font, laid out so that a sequence becomes one picture.

    Raises:
        ImportError: Pillow lacks Raqm or FriBiDi: every sequence would fall apart.
        ValueError: no font, or one without colour bitmaps of 109 pixels to the em.
    """
    absent = [name for name in ("raqm", "fribidi") if not features.check(name)]
    if absent:
        raise ImportError(
            f"drawing emoji sequences needs {' and '.join(absent)} in Pillow {PIL.__version__}: "
            "take Pillow's own wheel (pip install --force-reinstall pillow) and install the "
            "system's FriBiDi (apt install libfribidi0)"
        )
    try:
        font = ImageFont.truetype(path, STRIKE, layout_engine=ImageFont.Layout.RAQM)
        face = _draw(A_FACE, font, _box(A_FACE, font))
    except OSError as error:
        raise ValueError(f"{path} has no bitmaps of size {STRIKE}: {error}") from None
    if not np.ptp(np.asarray(face), axis=-1).any():
        raise ValueError(
            f"{path} draws no coloured {A_FACE}: the bitmap version of Noto Color Emoji is needed"
        )
    return font


def render(
    texts: Sequence[str], font: ImageFont.FreeTypeFont, size: int
) -> UInt8[np.ndarray, "n size size 3"]:
    """The pictures of those texts that are one picture, each picture once."""
    different: dict[bytes, Image.Image] = {}
    with tqdm(texts, desc="drawing emoji", unit="emoji", leave=False) as bar:
        for image in _whole(bar, font):
            small = _shrink(image, size)
            different.setdefault(small.tobytes(), small)
    return np.stack([np.asarray(image) for image in different.values()])


def _whole(texts: Iterable[str], font: ImageFont.FreeTypeFont) -> Iterator[Image.Image]:
    """Pictures of the texts that are one picture.

    What the font does not have is drawn as its parts side by side, or as the sign for a missing
    character, which is empty or the same for all.
    """
    one = _box(A_FACE, font)
    nothing = _draw(NO_CHARACTER, font, one)
    for text in texts:
        if _box(text, font) == one:
            image = _draw(text, font, one)
            if image != nothing:
                yield image


def _box(text: str, font: ImageFont.FreeTypeFont) -> tuple[int, ...]:
    return tuple(map(int, font.getbbox(text)))


def _draw(text: str, font: ImageFont.FreeTypeFont, box: tuple[int, ...]) -> Image.Image:
    """The text in the middle of a white square that its box just fits in."""
    left, top, right, bottom = box
    side = max(right - left, bottom - top, 1)
    corner = ((side - right - left) // 2, (side - bottom - top) // 2)
    image = Image.new("RGB", (side, side), "white")
    ImageDraw.Draw(image).text(corner, text, fill="black", font=font, embedded_color=True)
    return image


def _shrink(image: Image.Image, size: int) -> Image.Image:
    """Smaller, by a filter whose weights are all positive: no edge gets a halo.

    The filter reaches 1 pixel of the result beyond it, where it is to see white.
    """
    side = image.width
    reach = math.ceil(side / size)
    wider = ImageOps.expand(image, reach, "white")
    square = (reach, reach, reach + side, reach + side)
    return wider.resize((size, size), Image.Resampling.HAMMING, square)


def _cache_file(font: Path, texts: Sequence[str], size: int) -> Path | None:
    """A name that changes with all that decides a pixel; None for a user without a home."""
    drawn_by = f"{RENDERING} {PIL.__version__} {features.version('harfbuzz')}"
    digest = hashlib.sha256(font.read_bytes())
    digest.update("\n".join([drawn_by, *texts]).encode())
    try:
        return user_cache() / "emoji" / f"{size}-{digest.hexdigest()[:16]}.npy"
    except RuntimeError:  # Path.home() without a home
        return None


def _read(file: Path | None, size: int) -> UInt8[np.ndarray, "n size size 3"] | None:
    """The pictures in a file; None where there is none that can be read."""
    if file is None:
        return None
    try:
        images = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    whole = isinstance(images, np.ndarray) and images.shape[1:] == (size, size, 3)
    return images if whole and images.dtype == np.uint8 else None


def _keep(file: Path | None, images: UInt8[np.ndarray, "n h w 3"]) -> None:
    """Writes beside the file and renames, so that nobody reads half of it."""
    if file is None:
        return
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            with beside.open("wb") as out:
                np.save(out, images)
            beside.replace(file)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        warnings.warn(f"the emoji are drawn anew next time: {error}", stacklevel=3)
