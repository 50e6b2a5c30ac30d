"""Arrays to pixels, PIL images and grids."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import ddpm_jax as dj
from ddpm_jax.images import make_grid, to_pil, to_uint8


def stripes(count: int, size: int = 8, channels: int = 1) -> np.ndarray:
    """Different images: image b has the value b / count, except for one white pixel."""
    images = np.broadcast_to(
        np.arange(count, dtype=np.float32)[:, None, None, None] / count,
        (count, size, size, channels),
    ).copy()
    images[:, 0, 0] = 1.0
    return images


def test_uint8_ends_and_middle():
    images = np.array([0.0, 1.0, 0.5, 1 / 255], np.float32).reshape(1, 2, 2, 1)
    # 0.5 * 255 = 127.5 lies between 127 and 128: the even one is 128.
    assert to_uint8(images).ravel().tolist() == [0, 255, 128, 1]


def test_uint8_rounds_halves_to_even():
    # k + 0.5 for integers k is exact here, so these are true ties.
    halves = (np.arange(0, 255, dtype=np.float64) + 0.5) / 255
    ties = halves[(halves * 255) % 1 == 0.5]
    assert ties.size > 100
    pixels = to_uint8(ties.reshape(1, 1, -1, 1)).ravel()
    assert np.all(pixels % 2 == 0)


@given(st.integers(0, 255))
def test_uint8_inverts_division_by_255(value: int):
    image = np.full((1, 1, 1, 3), value, np.float32) / np.float32(255)
    assert np.all(to_uint8(image) == value)


def test_jax_and_bfloat16_arrays():
    jnp = pytest.importorskip("jax.numpy")
    images = jnp.full((2, 4, 4, 3), 0.25)
    assert np.all(to_uint8(images) == 64)
    assert np.all(to_uint8(images.astype(jnp.bfloat16)) == 64)


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_to_pil(channels: int, mode: str):
    images = stripes(3, size=4, channels=channels)
    images[1, 2, 3] = 0.2
    pil_images = to_pil(images)
    assert [(p.mode, p.size) for p in pil_images] == [(mode, (4, 4))] * 3
    # PIL's coordinates are (column, row).
    pixel = pil_images[1].getpixel((3, 2))
    assert pixel == (51 if channels == 1 else (51, 51, 51))


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (np.zeros((8, 8, 3)), r"four axes.*\(8, 8, 3\)"),
        (np.zeros((1, 3, 8, 8)), r"1, 3 or 4 channels.*\(1, 3, 8, 8\)"),
        (np.zeros((0, 8, 8, 3)), "must not be empty"),
        (np.full((1, 8, 8, 3), np.nan), "192 of 192 numbers are NaN"),
        (np.full((1, 8, 8, 3), np.inf), "NaN or infinite"),
        (np.full((1, 8, 8, 3), -0.5), r"\[0, 1\].*got -0.5 to -0.5"),
        (np.full((1, 8, 8, 3), 1.5), r"\[0, 1\].*to 1.5"),
        (np.zeros((1, 8, 8, 3), np.uint8), "floats.*uint8"),
    ],
)
def test_arrays_that_are_not_images_are_refused(images: np.ndarray, words: str):
    for make in (to_uint8, to_pil, make_grid):
        with pytest.raises(ValueError, match=words):
            make(images)


@pytest.mark.parametrize(
    ("count", "columns", "rows"), [(1, 1, 1), (4, 2, 2), (10, 4, 3), (16, 4, 4)]
)
def test_grid_is_about_square(count: int, columns: int, rows: int):
    grid = make_grid(stripes(count, size=64), padding=0)
    assert grid.size == (columns * 64, rows * 64)


def test_grid_enlarges_tiny_images_without_smoothing():
    images = stripes(4)
    grid = make_grid(images, padding=0)
    assert grid.size == (128, 128)  # 8 x 8 to 64 x 64
    small = to_uint8(images)[..., 0]
    expected = np.block([[small[0], small[1]], [small[2], small[3]]]).repeat(8, 0).repeat(8, 1)
    np.testing.assert_array_equal(np.asarray(grid), expected)


@pytest.mark.parametrize(("size", "factor"), [(8, 8), (28, 2), (32, 2), (64, 1), (256, 1)])
def test_default_scale(size: int, factor: int):
    assert make_grid(stripes(1, size=size), padding=0).size == (size * factor,) * 2


def test_grid_places_padding_and_leftovers():
    grid = make_grid(np.zeros((3, 4, 6, 3), np.float32), 2, padding=1, scale=1, background=200)
    assert grid.mode == "RGB"
    assert grid.size == (2 * 7 + 1, 2 * 5 + 1)
    pixels = np.asarray(grid)[..., 0]
    expected = np.full((11, 15), 200)
    expected[1:5, 1:7] = expected[1:5, 8:14] = expected[6:10, 1:7] = 0
    np.testing.assert_array_equal(pixels, expected)


def test_grid_is_no_wider_than_its_images():
    assert make_grid(stripes(2, size=64), columns=10, padding=0).size == (128, 64)


def test_grid_of_pil_images_is_the_grid_of_their_array():
    images = stripes(5, channels=3)
    expected = np.asarray(make_grid(images))
    np.testing.assert_array_equal(np.asarray(make_grid(to_pil(images))), expected)


def test_grid_refuses_images_that_differ():
    pil_images = [Image.new("L", (8, 8)), Image.new("L", (8, 9))]
    with pytest.raises(ValueError, match=r"same size.*L 8x8, L 8x9"):
        make_grid(pil_images)
    with pytest.raises(ValueError, match=r"the same mode of L, RGB, RGBA; got CMYK 8x8"):
        make_grid([Image.new("CMYK", (8, 8))])


def test_alpha_channels_stay():
    clear = np.zeros((3, 4, 4, 4))
    grid = make_grid(clear, columns=2, padding=1, scale=1)
    assert (grid.mode, grid.size) == ("RGBA", (11, 11))
    assert grid.getpixel((1, 1)) == (0, 0, 0, 0)
    assert grid.getpixel((0, 0)) == grid.getpixel((7, 7)) == (255, 255, 255, 255)


def test_grid_names_every_bad_argument():
    with pytest.raises(ValueError, match=r"columns.*-1.*padding.*-2.*scale.*0.*background.*256"):
        make_grid(stripes(1), -1, padding=-2, scale=0, background=256)


def test_a_gif_has_the_frames(tmp_path: Path):
    frames = [Image.new("RGB", (8, 6), color) for color in ("red", "green", "blue")]
    dj.save_gif(tmp_path / "a.gif", frames, milliseconds=50, hold=700)
    with Image.open(tmp_path / "a.gif") as gif:
        assert (gif.format, gif.n_frames, gif.size, gif.info["loop"]) == ("GIF", 3, (8, 6), 0)
        for i, frame in enumerate(frames):
            gif.seek(i)
            assert gif.info["duration"] == (700 if i == 2 else 50)
            assert np.array_equal(gif.convert("RGB"), frame)
    dj.save_gif(tmp_path / "gray.gif", np.linspace(0, 1, 4 * 64).reshape(4, 8, 8, 1))
    with Image.open(tmp_path / "gray.gif") as gif:
        assert gif.n_frames == 4


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"milliseconds": 5}, "at least 10, got 5 and 1000"),
        ({"hold": 0}, "at least 10, got 100 and 0"),
    ],
)
def test_gifs_that_are_refused(tmp_path: Path, options: dict[str, int], words: str):
    with pytest.raises(ValueError, match=words):
        dj.save_gif(tmp_path / "a.gif", np.zeros((2, 8, 8, 1)), **options)
    with pytest.raises(ValueError, match="must not be empty"):
        dj.save_gif(tmp_path / "a.gif", np.zeros((0, 8, 8, 1)))
    assert not list(tmp_path.iterdir())
