"""Fashion-MNIST as array files: `python -m examples.fashion_mnist.prepare FOLDER`.

Reads the four files of the data set (Xiao, Rasul and Vollgraf 2017, arXiv:1708.07747), which
Debian's package dataset-fashion-mnist installs, and writes `train.npz` and `test.npz`: images as
uint8 of (N, 32, 32, 1), the 28x28 pixels in a border of black, and labels. A UNet that halves the
image three times needs sides that 8 divides.
"""

import gzip
from argparse import ArgumentParser
from collections.abc import Sequence
from math import prod
from pathlib import Path

import numpy as np

INSTALLED = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package puts the files."""
CLASSES = (
    "T-shirt/top", "trouser", "pullover", "dress", "coat",
    "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
BORDER = 2
"""Black pixels around the 28x28."""
UBYTE = 8
"""The code of uint8 in an IDX header, whose bytes are 0, 0, type, rank, and a size for each axis
in four bytes, the highest first (http://yann.lecun.com/exdb/mnist)."""


def read_idx(path: Path) -> np.ndarray:
    """The uint8 array of a gzipped IDX file.

    Raises:
        ValueError: it is no such file, or is cut short.
    """
    try:
        data = gzip.decompress(path.read_bytes())
    except (EOFError, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is not a whole gzip file: {error}") from error
    if len(data) < 4 or data[:3] != bytes([0, 0, UBYTE]):
        raise ValueError(f"{path} is not an IDX file of bytes: it begins with {data[:4]!r}")
    rank = data[3]
    shape = tuple(int(size) for size in np.frombuffer(data, ">u4", rank, 4))
    values = np.frombuffer(data, np.uint8, offset=4 + 4 * rank)
    if values.size != prod(shape):
        raise ValueError(f"{path} has {values.size} bytes, not those of shape {shape}")
    return values.reshape(shape)


def read(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 32, 32, 1) and labels (N,) of a part: "train" or "t10k"."""
    images = read_idx(folder / f"{part}-images-idx3-ubyte.gz")
    labels = read_idx(folder / f"{part}-labels-idx1-ubyte.gz")
    edge = (BORDER, BORDER)
    return np.pad(images, ((0, 0), edge, edge))[..., None], labels


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command."""
    parser = ArgumentParser(prog="python -m examples.fashion_mnist.prepare", description=__doc__)
    parser.add_argument("out", type=Path, help="folder of train.npz and test.npz")
    parser.add_argument("--source", type=Path, default=INSTALLED, help=f"({INSTALLED})")
    given = parser.parse_args(arguments)
    if not given.source.is_dir():
        parser.error(f"{given.source} is not there: apt install dataset-fashion-mnist")
    given.out.mkdir(parents=True, exist_ok=True)
    for part, name in (("train", "train.npz"), ("t10k", "test.npz")):
        images, labels = read(given.source, part)
        np.savez_compressed(given.out / name, image=images, label=labels)
        print(f"{given.out / name}: {len(images)} images")


if __name__ == "__main__":
    main()
