"""Draws all emoji of a color font into an array file, to train on.

    python examples/draw_emoji.py emoji.npz --size 16
    ddpm-jax train --data emoji.npz --preset emoji --out emoji-run

The `emoji` package has Unicode's list; the "fully qualified" ones are drawn, with sequences
(families, skin tones, flags, keycaps). Those that the font draws as one image are kept, and the
first of images that are equal (the flags of France and of Saint Martin).

The font is Noto Color Emoji with its bitmaps of 136 x 128 pixels, licensed under the SIL Open Font
License 1.1. Debian and Ubuntu have it as fonts-noto-color-emoji. Needs: pip install emoji
"""

import argparse
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps, features
from tqdm import tqdm

FONT_NAME = "NotoColorEmoji.ttf"
STRIKE = 109
"""The only size of the font's bitmaps, in pixels to the em."""

SIZES = range(8, 129)
"""Sides that images can have: the font's bitmaps are made smaller, never larger."""

A_FACE, NO_CHARACTER = "\U0001f600", "\U0010ffff"


def main(args: Sequence[str] | None = None) -> None:
    """Writes the file that the command line names."""
    parser = argparse.ArgumentParser(
        description="Draws all emoji of a color font into an .npz file."
    )
    parser.add_argument("out", type=Path, help="the .npz file to write")
    parser.add_argument(
        "--size", type=int, default=16, help="side in pixels, 8 to 128 (default 16)"
    )
    parser.add_argument("--font", type=Path, help="the font's file (default: the installed one)")
    given = parser.parse_args(args)
    if given.size not in SIZES:
        parser.error(f"--size must be in {SIZES[0]}..{SIZES[-1]}, got {given.size}")
    if given.out.suffix != ".npz":
        parser.error(f"the file to write must end in .npz, got {given.out}")
    try:
        images = render(emoji_list(), load_font(given.font or find_font()), given.size)
    except (OSError, ImportError, ValueError) as error:
        parser.error(str(error))
    np.savez(given.out, image=images)
    print(f"{given.out}: {len(images)} images of {given.size}x{given.size}")


def find_font() -> Path:
    """The font's file in the folders of Linux and macOS, the user's own first."""
    home = Path.home()
    data_home = os.environ.get("XDG_DATA_HOME") or home / ".local/share"
    data = (os.environ.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share").split(":")
    linux = [Path(folder) / "fonts" for folder in [data_home, *data] if folder]
    folders = [
        linux[0],
        home / ".fonts",
        *linux[1:],
        home / "Library/Fonts",
        Path("/Library/Fonts"),
    ]
    for folder in folders:
        for path in sorted(folder.rglob(FONT_NAME)):
            return path
    raise FileNotFoundError(
        f"the font {FONT_NAME} is in none of {', '.join(map(str, folders))}. On Debian and Ubuntu: "
        "apt install fonts-noto-color-emoji. Elsewhere give --font, the file of its bitmap version "
        "(not the one named COLRv1)"
    )


def emoji_list() -> list[str]:
    """All fully qualified emoji, sorted by code points."""
    from emoji import EMOJI_DATA, STATUS

    qualified = STATUS["fully_qualified"]
    return sorted(text for text, about in EMOJI_DATA.items() if about["status"] == qualified)


def load_font(path: Path) -> ImageFont.FreeTypeFont:
    """The font, with a layout that draws a sequence as one image.

    Raises:
        ImportError: Pillow lacks Raqm or FriBiDi, without which sequences fall apart.
        ValueError: not a font, or one without color bitmaps of 109 pixels to the em.
    """
    absent = [name for name in ("raqm", "fribidi") if not features.check(name)]
    if absent:
        raise ImportError(
            f"emoji sequences need {' and '.join(absent)} in Pillow: use Pillow's own wheel "
            "(pip install --force-reinstall pillow) and the system's FriBiDi (apt install "
            "libfribidi0)"
        )
    try:
        font = ImageFont.truetype(path, STRIKE, layout_engine=ImageFont.Layout.RAQM)
        face = _draw(A_FACE, font, _box(A_FACE, font))
    except OSError as error:
        raise ValueError(f"{path} has no bitmaps of size {STRIKE}: {error}") from None
    if not np.ptp(np.asarray(face), axis=-1).any():
        raise ValueError(
            f"{path} draws {A_FACE} without color: the bitmap version of Noto Color Emoji is needed"
        )
    return font


def render(texts: Sequence[str], font: ImageFont.FreeTypeFont, size: int) -> np.ndarray:
    """(n, size, size, 3) uint8: the texts that are one image, each image once."""
    different: dict[bytes, Image.Image] = {}
    for image in _whole(tqdm(texts, desc="drawing emoji", unit="emoji", leave=False), font):
        small = _shrink(image, size)
        different.setdefault(small.tobytes(), small)
    return np.stack([np.asarray(image) for image in different.values()])


def _whole(texts: Iterable[str], font: ImageFont.FreeTypeFont) -> Iterator[Image.Image]:
    """Images of the texts that are one image.

    The font draws an unknown sequence as its parts in a row, and an unknown character as the sign
    for a missing one, which is empty or the same for all.
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
    """Smaller, by a filter with positive weights only, so that edges have no halo.

    The filter reaches 1 pixel of the result beyond the image; it finds white there.
    """
    side = image.width
    reach = math.ceil(side / size)
    wider = ImageOps.expand(image, reach, "white")
    square = (reach, reach, reach + side, reach + side)
    return wider.resize((size, size), Image.Resampling.HAMMING, square)


if __name__ == "__main__":
    main()
