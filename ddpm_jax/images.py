"""Arrays to images: [-1, 1] to [0, 1], uint8, PIL images, grids and animations.

Images are float arrays (B, H, W, C) in [0, 1] with one channel (gray), three (RGB) or four (RGBA),
like the output of a pipeline with `output_type="np"` or "jax".
"""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from numpy.typing import ArrayLike
from PIL import Image

from ddpm_jax._typing import AnyArray
from ddpm_jax.hub.files import replacing

TILE = 64
"""The side in pixels that `make_grid` enlarges small tiles to: smaller tiles are hard to see."""

MODES = {1: "L", 3: "RGB", 4: "RGBA"}
"""PIL's mode for each number of channels."""


def to_unit(samples: Float[AnyArray, "..."]) -> Float[AnyArray, "..."]:
    """NumPy or jax arrays rescaled from the networks' [-1, 1] to [0, 1] and clipped."""
    return (samples / 2 + 0.5).clip(0, 1)


@dataclass(frozen=True)
class PixelRange:
    """What a network in pixel space has for black; white is 1."""

    black: float

    def to_unit(self, samples: Float[AnyArray, "..."]) -> Float[AnyArray, "..."]:
        """Samples rescaled to [0, 1] and clipped."""
        return ((samples - self.black) / (1 - self.black)).clip(0, 1)

    def from_unit(self, images: Float[AnyArray, "..."]) -> Float[AnyArray, "..."]:
        """The inverse of `to_unit`."""
        return (1 - self.black) * images + self.black


SIGNED, UNIT = PixelRange(-1.0), PixelRange(0.0)
"""[-1, 1], and the [0, 1] of the networks of Song et al. 2021, arXiv:2011.13456."""


def to_uint8(images: ArrayLike) -> UInt8[np.ndarray, "b h w c"]:
    """Pixels 0..255 of images in [0, 1], rounded half to even.

    Raises ValueError unless `images` is a float array (B, H, W, C) of finite numbers in [0, 1] with
    C = 1, 3 or 4.

    >>> import numpy as np, ddpm_jax as dj
    >>> dj.to_uint8(np.array([0.0, 0.5, 1.0]).reshape(1, 1, 3, 1)).ravel().tolist()
    [0, 128, 255]
    """
    return (_checked(images) * 255).round().astype(np.uint8)


def to_pil(images: ArrayLike) -> list[Image.Image]:
    """One PIL image for each, with mode L, RGB or RGBA for 1, 3 or 4 channels. Raises as
    `to_uint8`.

    >>> import numpy as np, ddpm_jax as dj
    >>> [(image.mode, image.size) for image in dj.to_pil(np.zeros((2, 8, 6, 1)))]
    [('L', (6, 8)), ('L', (6, 8))]
    """
    pixels = to_uint8(images)
    # PIL needs gray images without a channel axis.
    return [Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image) for image in pixels]


def make_grid(
    images: ArrayLike | Sequence[Image.Image],
    columns: int | None = None,
    *,
    padding: int = 2,
    scale: int | None = None,
    background: int = 255,
) -> Image.Image:
    """All images in one grid, row by row.

    Args:
        images: an array as for `to_uint8`, or PIL images of one size and mode (L, RGB or RGBA).
        columns: images in a row. Default: the numbers of rows and columns are about equal.
        padding: pixels between and around the images.
        scale: integer factor that enlarges each image without smoothing. Default: for small images
            the factor that gives the size closest to 64 pixels, otherwise 1.
        background: gray level, 0 (black) to 255 (white), of the padding and of empty tiles, which
            are opaque.

    Raises:
        ValueError: there is no image, images differ in size or mode, an argument is out of range,
            or as in `to_uint8`.

    >>> import numpy as np, ddpm_jax as dj
    >>> dj.make_grid(np.zeros((6, 8, 8, 3)), columns=3, padding=1, scale=2).size
    (52, 35)
    """
    tiles = _tiles(images)
    width, height = tiles[0].size
    columns = math.ceil(math.sqrt(len(tiles))) if columns is None else columns
    scale = max(1, round(TILE / max(width, height))) if scale is None else scale
    _check_layout(columns, padding, scale, background)
    columns = min(columns, len(tiles))
    rows = math.ceil(len(tiles) / columns)
    step_x, step_y = width * scale + padding, height * scale + padding
    size = (columns * step_x + padding, rows * step_y + padding)
    mode = tiles[0].mode
    colors = {"L": background, "RGB": (background,) * 3, "RGBA": (*(background,) * 3, 255)}
    grid = Image.new(mode, size, colors[mode])
    for index, tile in enumerate(tiles):
        row, column = divmod(index, columns)
        big = tile.resize((width * scale, height * scale), Image.Resampling.NEAREST)
        grid.paste(big, (padding + column * step_x, padding + row * step_y))
    return grid


def save_gif(
    path: str | os.PathLike[str],
    frames: ArrayLike | Sequence[Image.Image],
    *,
    milliseconds: int = 100,
    hold: int = 1000,
) -> None:
    """Writes an animation that repeats, such as the previews of a run.

    Args:
        path: the file; it appears when it is complete.
        frames: PIL images of one size and mode, such as grids, or an array (frames, H, W, C) as for
            `to_uint8`. Transparent pixels become opaque.
        milliseconds: of each frame, at least 10, in which GIF counts.
        hold: milliseconds of the last frame, at least 10.

    Raises:
        ValueError: there is no frame, a time is out of range, or as in `make_grid`.

    >>> import numpy as np, ddpm_jax as dj
    >>> path = getfixture("tmp_path") / "a.gif"
    >>> dj.save_gif(path, np.linspace(0, 1, 4 * 8 * 8).reshape(4, 8, 8, 1))
    >>> path.read_bytes()[:3]
    b'GIF'
    """
    tiles = _tiles(frames)
    if min(milliseconds, hold) < 10:
        raise ValueError(
            f"milliseconds and hold must be at least 10, got {milliseconds} and {hold}"
        )
    first, *rest = (tile.convert("RGB") if tile.mode == "RGBA" else tile for tile in tiles)
    durations = [*[milliseconds] * len(rest), hold]
    with replacing(Path(path)) as partial:
        first.save(
            partial, format="GIF", save_all=True, append_images=rest, duration=durations, loop=0
        )


def _checked(images: ArrayLike) -> Float[np.ndarray, "b h w c"]:
    """The images, checked, as float32 (float64 stays)."""
    given = np.asarray(images)
    if given.dtype.kind in "biuc" or given.dtype.kind in "OSU":
        raise ValueError(f"images must be floats in [0, 1]; got an array of {given.dtype}")
    array = given if given.dtype == np.float64 else given.astype(np.float32)
    if array.ndim != 4:
        raise ValueError(f"images must have the four axes (B, H, W, C); got shape {array.shape}")
    if array.shape[-1] not in MODES:
        raise ValueError(
            f"images must have 1, 3 or 4 channels, last in the shape; got shape {array.shape}"
        )
    if 0 in array.shape:
        raise ValueError(f"images must not be empty; got shape {array.shape}")
    bad = np.count_nonzero(~np.isfinite(array))
    if bad:
        raise ValueError(
            f"images must be finite; {bad} of {array.size} numbers are NaN or infinite"
        )
    low, high = array.min(), array.max()
    if low < 0 or high > 1:
        raise ValueError(
            f"images must lie in [0, 1]; got {low:g} to {high:g} (for samples in [-1, 1] pass "
            "(x / 2 + 0.5).clip(0, 1))"
        )
    return array


def _tiles(images: ArrayLike | Sequence[Image.Image]) -> list[Image.Image]:
    if not (
        isinstance(images, Sequence) and any(isinstance(image, Image.Image) for image in images)
    ):
        return to_pil(images)  # pyright: ignore[reportArgumentType]
    tiles = [image for image in images if isinstance(image, Image.Image)]
    kinds = sorted({f"{image.mode} {image.width}x{image.height}" for image in tiles})
    if len(tiles) != len(images) or len(kinds) > 1 or tiles[0].mode not in MODES.values():
        modes = ", ".join(MODES.values())
        raise ValueError(
            f"images must have the same size and the same mode of {modes}; got {', '.join(kinds)}"
        )
    return tiles


def _check_layout(columns: int, padding: int, scale: int, background: int) -> None:
    faults = []
    if columns < 1:
        faults.append(f"columns must be at least 1, got {columns}")
    if padding < 0:
        faults.append(f"padding must be at least 0, got {padding}")
    if scale < 1:
        faults.append(f"scale must be at least 1, got {scale}")
    if not 0 <= background <= 255:
        faults.append(f"background must be in 0..255, got {background}")
    if faults:
        raise ValueError("; ".join(faults))
