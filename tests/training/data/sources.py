"""What the tests of sources share."""

from pathlib import Path

import numpy as np
from PIL import Image

from ddpm_jax.training.data import Data, Source, open_source

RNG = np.random.default_rng(0)


def opened(name: Path | str, **fields: object) -> Source:
    return open_source(Data(name=str(name), **fields))


def assert_same(source: Source, other: Source) -> None:
    assert len(source) == len(other)
    for index in (0, len(source) - 1):
        np.testing.assert_array_equal(source[index]["image"], other[index]["image"])


def image(size: tuple[int, int] = (8, 8), mode: str = "RGB") -> Image.Image:
    """One of random pixels; `size` is width and height."""
    return Image.fromarray(RNG.integers(0, 256, (size[1], size[0], 4), np.uint8)).convert(mode)
