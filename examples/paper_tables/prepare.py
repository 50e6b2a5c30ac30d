"""CIFAR-10 as array files: `python -m examples.paper_tables.prepare ARCHIVE FOLDER`.

Reads cifar-10-binary.tar.gz (https://www.cs.toronto.edu/~kriz/cifar.html), and writes `train.npz`
and `test.npz`: images as uint8 of (N, 32, 32, 3), and labels. A record of the archive is a byte of
the label and 3072 of the pixels: red, green, blue, each row by row.
"""

import tarfile
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

import numpy as np

FOLDER = "cifar-10-batches-bin"
PARTS = {"train": [f"data_batch_{k}.bin" for k in range(1, 6)], "test": ["test_batch.bin"]}
RECORD = 1 + 3 * 32 * 32


def read(archive: Path, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 32, 32, 3) and labels (N,) of files in the archive, in their order.

    Raises:
        ValueError: it is no such archive, is cut short, or lacks a file.
    """
    try:
        with tarfile.open(archive, "r:gz") as tar:
            rows = [_records(tar, f"{FOLDER}/{name}") for name in names]
    except (tarfile.TarError, EOFError, KeyError) as error:
        raise ValueError(f"{archive} is not a whole cifar-10-binary.tar.gz: {error}") from error
    records = np.concatenate(rows)
    return records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), records[:, 0]


def _records(tar: tarfile.TarFile, name: str) -> np.ndarray:
    content = tar.extractfile(name)
    data = b"" if content is None else content.read()
    if not data or len(data) % RECORD:
        raise ValueError(f"{name} has {len(data)} bytes, not a multiple of {RECORD}")
    return np.frombuffer(data, np.uint8).reshape(-1, RECORD)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command."""
    parser = ArgumentParser(prog="python -m examples.paper_tables.prepare", description=__doc__)
    parser.add_argument("archive", type=Path, help="cifar-10-binary.tar.gz")
    parser.add_argument("out", type=Path, help="folder of train.npz and test.npz")
    given = parser.parse_args(arguments)
    if not given.archive.is_file():
        parser.error(f"{given.archive} is not there")
    given.out.mkdir(parents=True, exist_ok=True)
    for part, names in PARTS.items():
        images, labels = read(given.archive, names)
        np.savez_compressed(given.out / f"{part}.npz", image=images, label=labels)
        print(f"{given.out / part}.npz: {len(images)} images")


if __name__ == "__main__":
    main()
