"""Image files to arrays: decoding, channels, 16 bits, orientation, resizing and cropping."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from ddpm_jax.training.data import Data, UnreadableImage, open_source
from ddpm_jax.training.data.decoding import Header, decode, read_header
from ddpm_jax.training.data.transform import Transform, resize, resized, to_range, unit

RNG = np.random.default_rng(0)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(*shape: int, dtype: type = np.uint8) -> np.ndarray:
    return RNG.integers(0, np.iinfo(dtype).max + 1, shape, dtype)


def test_grey_of_16_bits(tmp_path: Path):
    """All bits reach the network: two values that are one in 8 bits."""
    made = np.array([[300, 301]], np.uint16)
    Image.fromarray(made).save(tmp_path / "deep.png")
    image = open_source(Data(name=str(tmp_path)))[0]["image"]
    np.testing.assert_allclose(image.ravel(), np.array([300, 301]) / 32767.5 - 1, atol=1e-7)
    file = (tmp_path / "deep.png").read_bytes()
    np.testing.assert_array_equal(decode(file, 3), made[..., None].repeat(3, -1))
    np.testing.assert_array_equal(decode(file, 4)[..., 3], np.full((1, 2), 65535))


def test_colour_of_16_bits_comes_as_8():
    """A PNG of one pixel, 16 bits a channel."""
    pixel = np.array([[[0x1234, 0xABCD, 0xFFFF]]], ">u2")

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    size = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    body = chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(b"\0" + pixel.tobytes()))
    file = b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")
    assert read_header(file) == Header(1, 1, 3)
    assert np.asarray(decode(file, 3)).tolist() == [[[0x12, 0xAB, 0xFF]]]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_every_mode_becomes_every_number_of_channels(mode: str, channels: int):
    colour = Image.fromarray(pixels(6, 5, 3))
    image = colour.convert("L").convert(mode) if mode == "I;16" else colour.convert(mode)
    kind = "JPEG" if mode == "CMYK" else "PNG"
    array = np.asarray(decode(encoded(image, kind), channels))
    assert array.reshape(6, 5, -1).shape == (6, 5, channels)


def test_a_palette_with_alpha_is_read_without_a_warning():
    image = Image.fromarray(pixels(4, 4, 3)).quantize(8)
    file = encoded(image, transparency=bytes(range(0, 256, 32)))
    assert read_header(file).channels == 4
    assert np.asarray(decode(file, 3)).shape == (4, 4, 3)


@pytest.mark.parametrize(
    ("image", "channels"),
    [
        (Image.new("1", (3, 2)), 1),
        (Image.new("L", (3, 2)), 1),
        (Image.new("I;16", (3, 2)), 1),
        (Image.new("P", (3, 2)), 3),
        (Image.new("RGB", (3, 2)), 3),
        (Image.new("LA", (3, 2)), 4),
        (Image.new("RGBA", (3, 2)), 4),
    ],
    ids=lambda value: getattr(value, "mode", value),
)
def test_header(image: Image.Image, channels: int):
    assert read_header(encoded(image)) == Header(2, 3, channels)


def turned(place: str) -> bytes:
    """Wide, the left half white, to be rotated by a quarter, clockwise; where the file says so."""
    image = Image.new("RGB", (16, 8))
    image.paste((255, 255, 255), (0, 0, 8, 8))
    exif = Image.Exif()
    exif[0x0112] = 6
    content = exif.tobytes().removeprefix(b"Exif\0\0")
    xmp = (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf'
        b'-syntax-ns#"><rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" '
        b'tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
    )
    if place == "behind the pixels":
        whole = encoded(image)
        chunk = struct.pack(">I", len(content)) + b"eXIf" + content
        return whole[:-12] + chunk + struct.pack(">I", zlib.crc32(chunk[4:])) + whole[-12:]
    if place == "raw profile":
        text = PngImagePlugin.PngInfo()
        digits = (b"Exif\0\0" + content).hex()
        lines = "\n".join(digits[i : i + 72] for i in range(0, len(digits), 72))
        text.add_text("Raw profile type exif", f"\nexif\n{len(digits) // 2:8}\n{lines}\n")
        return encoded(image, pnginfo=text)
    kind, way = place.split()
    return encoded(image, kind, **({"xmp": xmp} if way == "xmp" else {"exif": exif}))


@pytest.mark.parametrize(
    "place",
    ["PNG exif", "JPEG exif", "WEBP exif", "TIFF exif", "JPEG xmp", "WEBP xmp"]
    + ["behind the pixels", "raw profile"],
)
def test_images_are_upright(place: str):
    file = turned(place)
    assert read_header(file) == Header(16, 8, 3)
    upright = np.asarray(decode(file, 1))
    assert upright.shape == (16, 8)
    assert upright[:6].min() > 250  # the left half is on top
    assert upright[10:].max() < 5


def test_grey_of_16_bits_is_upright_too():
    exif = Image.Exif()
    exif[0x0112] = 6
    file = encoded(Image.fromarray(pixels(8, 16, dtype=np.uint16)), exif=exif)
    assert decode(file, 1).shape == (16, 8, 1)
    assert read_header(file) == Header(16, 8, 1)


@pytest.mark.parametrize(
    ("dtype", "value"),
    [(np.float32, 0.5), (np.float32, 70_000), (np.int32, 70_000), (np.int32, -1)],
)
def test_grey_of_32_bits_is_refused_where_it_does_not_fit(dtype: type, value: float):
    file = encoded(Image.fromarray(np.full((2, 2), value, dtype)), "TIFF")
    with pytest.raises(UnreadableImage, match="accepted are 8 and 16 bits"):
        decode(file, 1)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_broken_files_say_why(kind: str):
    whole = encoded(Image.fromarray(pixels(64, 64, 3)), kind)
    for file in (b"", b"text", whole[: len(whole) // 2], whole[:40]):
        with pytest.raises(UnreadableImage, match=r"\w"):
            decode(file, 3)


def test_an_image_that_is_too_large_is_not_read(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(UnreadableImage, match="limit"):
        decode(encoded(Image.new("L", (8, 8))), 1)


@pytest.mark.parametrize(
    ("height", "width", "shorter", "expected"),
    [(20, 30, 10, (10, 15)), (31, 17, 8, (14, 8)), (3, 5, 6, (6, 10)), (9, 9, 9, (9, 9))],
)
def test_sizes(height: int, width: int, shorter: int, expected: tuple[int, int]):
    assert resized(height, width, shorter) == expected


@pytest.mark.parametrize("channels", [1, 3])
def test_arrays_and_images_are_resized_alike(channels: int):
    made = pixels(20, 30, channels)
    image = Image.fromarray(made.squeeze(-1) if channels == 1 else made)
    np.testing.assert_array_equal(resize(made, 10), resize(image, 10))
    deep = resize(made.astype(np.uint16) * 257, 10)
    assert deep.dtype == np.float32
    assert np.abs(deep * 255 - resize(made, 10)).max() < 1  # Pillow's 8 bits are rounded twice


def test_resizing_is_antialiased():
    """A fine checkerboard becomes grey, not a coarse one."""
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)[..., None]
    small = resize(board, 8)[1:-1, 1:-1]
    assert 110 < small.min() <= small.max() < 145


def test_the_fourth_channel_of_an_array_is_not_alpha():
    made = np.concatenate([np.full((8, 8, 3), 200), np.zeros((8, 8, 1))], -1).astype(np.uint8)
    assert resize(made, 4)[..., :3].min() == 200


def test_crops_and_flips():
    board = np.arange(4 * 7, dtype=np.uint8).reshape(4, 7, 1)
    center = Transform(4, "center", True)
    np.testing.assert_array_equal(center(board, None), board[:, 2:6])  # round(1.5) = 2
    half = 1 << 63
    np.testing.assert_array_equal(center(board, [half, 0, 0]), board[:, 5:1:-1])
    np.testing.assert_array_equal(center(board, [half - 1, 0, 0]), board[:, 2:6])
    anywhere = Transform(4, "random", False)
    lefts = [int(anywhere(board, [0, 0, word << 62])[0, 0, 0]) for word in range(4)]
    assert lefts == [0, 1, 2, 3]
    np.testing.assert_array_equal(anywhere(board, None), board[:, 2:6])
    assert Transform(2, "none", False)(board, None).shape == (2, 3, 1)


def test_the_range():
    every = to_range(np.arange(256, dtype=np.uint8))
    assert every.dtype == np.float32
    assert (every[0], every[255]) == (-1, 1)
    np.testing.assert_allclose(every, np.arange(256) / 127.5 - 1, atol=1e-7)
    assert to_range(unit(np.array([0, 65535], np.uint16))).tolist() == [-1, 1]
    assert to_range(unit(np.array([0.0, 0.5, 1.0]))).tolist() == [-1, 0, 1]
    assert to_range(np.array([-1e-7, 1 + 1e-7], np.float32)).tolist() == [-1, 1]
