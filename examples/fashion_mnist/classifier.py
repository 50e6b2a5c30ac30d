"""A small classifier of Fashion-MNIST, whose hidden layer compares images:
`python -m examples.fashion_mnist.classifier DATA`.

    (1)  hidden = relu(W_1 x + b_1),    logits = W_2 hidden + b_2,    x = 28x28 pixels in [0, 1]

scikit-learn trains it on DATA/train.npz. The file `classifier.npz` in DATA has its numbers and its
accuracy on DATA/test.npz. Distances of its features compare only with others by the same file: they
are no FIDs of Inception-v3.
"""

import warnings
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

import ddpm_jax as dj
from ddpm_jax.cli.fingerprint import file_sum
from ddpm_jax.evaluation.features import Outputs
from ddpm_jax.evaluation.resizing import RESIZINGS
from ddpm_jax.hub.files import replacing
from examples.fashion_mnist.prepare import BORDER

SIDE, HIDDEN, EPOCHS, CLASSES = 28, 128, 20, 10
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
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    network = MLPClassifier((HIDDEN,), max_iter=epochs, random_state=0, verbose=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the number of epochs is chosen
        network.fit(*_rows(data / "train.npz"))
    kernels, biases = network.coefs_, network.intercepts_
    arrays = {"hidden_kernel": kernels[0], "hidden_bias": biases[0]}
    arrays |= {"last_kernel": kernels[1], "last_bias": biases[1]}
    accuracy = network.score(*_rows(data / "test.npz"))
    with replacing(data / NAME) as partial, partial.open("wb") as content:
        numbers = {name: np.asarray(array, np.float32) for name, array in arrays.items()}
        np.savez(content, allow_pickle=False, accuracy=accuracy, **numbers)
    return data / NAME


def _rows(path: Path) -> tuple[np.ndarray, np.ndarray]:
    images, labels = read(path)
    return inner(images).reshape(len(images), -1) / np.float32(255), labels


def accuracy_of(path: Path) -> float:
    """The share of test images that the classifier in a file reads right."""
    with np.load(path) as file:
        return float(file["accuracy"])


def features(path: Path) -> dj.FeatureNetwork:
    """The classifier in a file, as a network that images of 28x28 are compared by."""
    with np.load(path) as file:
        params = {name: jnp.asarray(file[name]) for name in file.files if name != "accuracy"}
    return dj.FeatureNetwork(
        name="fashion-mnist",
        apply=_apply,
        params=params,
        size=(SIDE, SIDE),
        channels=1,
        resizing=RESIZINGS["none"],
        dims=params["hidden_kernel"].shape[1],
        classes=CLASSES,
        weights=file_sum(path),
    )


def _apply(params: Any, x: Array) -> Outputs:
    product = jnp.matmul(x.reshape(len(x), -1), params["hidden_kernel"], precision="highest")
    hidden = jax.nn.relu(product + params["hidden_bias"][None])
    logits = jnp.matmul(hidden, params["last_kernel"], precision="highest")
    return Outputs(hidden, logits + params["last_bias"][None])


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
