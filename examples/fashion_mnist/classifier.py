"""A small classifier of Fashion-MNIST, whose hidden layer compares images:
`python -m examples.fashion_mnist.classifier DATA`.

It is (1) of `examples.classifier` on the 28x28 pixels, trained on DATA/train.npz. The file
`classifier.npz` in DATA has its numbers and its accuracy on DATA/test.npz.
"""

from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import ddpm_jax as dj
from examples import classifier
from examples.fashion_mnist.prepare import BORDER

SIDE, HIDDEN, EPOCHS = 28, 128, 20
NAME = "classifier.npz"


def inner(images: np.ndarray) -> np.ndarray:
    """The 28x28 pixels of images (N, 32, 32, 1)."""
    return images[:, BORDER:-BORDER, BORDER:-BORDER]


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 32, 32, 1) and labels (N,) of a file of `prepare`.

    Raises:
        ValueError: it has other arrays.
    """
    with np.load(path) as file:
        found = {name: file[name] for name in file.files}
    shape = found["image"].shape if "image" in found else None
    wanted = (SIDE + 2 * BORDER, SIDE + 2 * BORDER, 1)
    if shape is None or shape[1:] != wanted or "label" not in found:
        raise ValueError(
            f"{path} must have images (N, 32, 32, 1) and labels, as examples.fashion_mnist.prepare "
            f"writes; it has {', '.join(found)}, images of {shape}"
        )
    return found["image"], found["label"]


def train(data: Path, epochs: int = EPOCHS) -> Path:
    """Trains the classifier, and writes its file into the folder of the data."""
    network = classifier.fitted(*_rows(data / "train.npz"), HIDDEN, epochs)
    classifier.save(data / NAME, network, network.score(*_rows(data / "test.npz")))
    return data / NAME


def _rows(path: Path) -> tuple[np.ndarray, np.ndarray]:
    images, labels = read(path)
    return classifier.rows(inner(images)), labels


def accuracy_of(path: Path) -> float:
    """The share of test images that the classifier in a file reads right."""
    return float(classifier.accuracy_of(path))


def features(path: Path) -> dj.FeatureNetwork:
    """The classifier in a file, as a network that images of 28x28 are compared by."""
    return classifier.features(path, "fashion-mnist", (SIDE, SIDE, 1), exclusive=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command."""
    parser = ArgumentParser(prog="python -m examples.fashion_mnist.classifier", description=__doc__)
    parser.add_argument("data", type=Path, help="folder of train.npz and test.npz")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help=f"({EPOCHS})")
    given = parser.parse_args(arguments)
    for part in ("train.npz", "test.npz"):
        if not (given.data / part).is_file():
            parser.error(f"{given.data / part} is not there: run examples.fashion_mnist.prepare")
    path = train(given.data, given.epochs)
    print(f"{path}: {accuracy_of(path):.2%} of the test images are read right")


if __name__ == "__main__":
    main()
