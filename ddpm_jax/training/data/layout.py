"""The one shape of all images after the transform."""

from concurrent.futures import ThreadPoolExecutor

from tqdm.auto import tqdm

from ddpm_jax.hub.files import listed
from ddpm_jax.training.data.decoding import MODES, Header, UnreadableImage
from ddpm_jax.training.data.settings import Data
from ddpm_jax.training.data.source import Reader
from ddpm_jax.training.data.transform import Transform

ENOUGH = 100
"""Headers that give the size where the number of channels is given; every image is compared with
that size when it is read."""

THREADS = 8
"""Threads that read headers: they wait for the disk."""


def layout(reader: Reader, data: Data, transform: Transform) -> tuple[int, int, int]:
    """(h, w, c) of every image after the transform. ValueError if they differ."""
    if not reader.converts:
        return _array_layout(reader, data, transform)
    if data.channels is not None and data.channels not in MODES:
        raise ValueError(
            f"channels must be 1, 3 or 4 for image files, got {data.channels}: other numbers need "
            "a .npy or .npz file"
        )
    if data.resolution is not None and data.crop != "none" and data.channels is not None:
        return *transform.shape(1, 1), data.channels
    count = len(reader) if data.channels is None else min(len(reader), ENOUGH)
    sizes, channels = _scan(reader, transform, count)
    if len(sizes) > 1:
        raise ValueError(_differ(reader, sizes, data))
    return *next(iter(sizes)), data.channels or _common(reader, channels)


def _array_layout(reader: Reader, data: Data, transform: Transform) -> tuple[int, int, int]:
    header = reader.header(0)
    if data.channels not in (None, header.channels):
        raise ValueError(
            f"{data.name} has {header.channels} channels, and arrays are not converted; "
            f"got channels={data.channels}"
        )
    return *transform.shape(header.height, header.width), header.channels


def _scan(
    reader: Reader, transform: Transform, count: int
) -> tuple[dict[tuple[int, int], int], dict[int, int]]:
    """The sizes after the transform and the numbers of channels in the first `count` headers, each
    with the index of an example. There is a progress bar if it takes long.
    """

    def header(index: int) -> Header:
        try:
            return reader.header(index)
        except UnreadableImage as error:
            raise UnreadableImage(
                f"{reader.name_of(index)} cannot be read: {error}; set skip_unreadable to leave "
                "out such images"
            ) from error

    sizes, channels = dict[tuple[int, int], int](), dict[int, int]()
    with ThreadPoolExecutor(THREADS) as threads:
        headers = threads.map(header, range(count))
        bar = tqdm(headers, total=count, desc="reading image sizes", unit="image", delay=1)
        try:
            for index, one in enumerate(bar):
                sizes.setdefault(transform.shape(one.height, one.width), index)
                channels.setdefault(one.channels, index)
        finally:
            threads.shutdown(cancel_futures=True)
    return sizes, channels


def _differ(reader: Reader, sizes: dict[tuple[int, int], int], data: Data) -> str:
    shown = listed(
        f"{width}x{height} ({reader.name_of(index)})" for (height, width), index in sizes.items()
    )
    if data.resolution is None:
        advice = "set resolution, to which they are resized and cropped"
    else:
        advice = "set crop to center or random"
    resized = "" if data.resolution is None else " after resizing"
    return f"the images have different sizes{resized}, {shown}: {advice}"


def _common(reader: Reader, channels: dict[int, int]) -> int:
    """The channels that hold all images without loss; ValueError if only some have alpha."""
    if 4 in channels and len(channels) > 1:
        other = next(index for number, index in channels.items() if number != 4)
        raise ValueError(
            f"some images have alpha, such as {reader.name_of(channels[4])}, and some do not, "
            f"such as {reader.name_of(other)}: set channels to 3 to drop it or to 4 to add it"
        )
    return max(channels)
