"""Small classifiers whose hidden layer compares images, trained by scikit-learn.

    (1)  hidden = relu(W_1 x + b_1),    logits = W_2 hidden + b_2,    x = all pixels in [0, 1]

A file has the numbers of one, and how much of its test set it reads right. Distances of its
features compare only with others by the same file: they are no FIDs of Inception-v3.
"""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import ArrayLike

import ddpm_jax as dj
from ddpm_jax.evaluation.features import Outputs
from ddpm_jax.evaluation.networks import one_hidden_layer
from ddpm_jax.evaluation.resizing import RESIZINGS
from ddpm_jax.hub.files import file_sum, replacing
from ddpm_jax.hub.npz import read_npz

if TYPE_CHECKING:
    from sklearn.neural_network import MLPClassifier

ACCURACY = "accuracy"
PARAMS = ("hidden_kernel", "hidden_bias", "last_kernel", "last_bias")


def rows(images: np.ndarray) -> np.ndarray:
    """x of (1) for uint8 images (N, H, W, C): (N, H W C) float32."""
    return images.reshape(len(images), -1) / np.float32(255)


def fitted(x: np.ndarray, targets: np.ndarray, hidden: int, epochs: int) -> "MLPClassifier":
    """A network of (1) after so many epochs.

    Args:
        x: (N, pixels) of `rows`.
        targets: (N,) classes, or (N, words) of 0 and 1: which words say what is seen.
        hidden: width of the hidden layer.
        epochs: passes over all rows.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    network = MLPClassifier((hidden,), max_iter=epochs, random_state=0, verbose=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the number of epochs is chosen
        return network.fit(x, targets)


def save(path: Path, network: "MLPClassifier", accuracy: ArrayLike) -> None:
    """Writes the file of a network: its numbers in float32, and its accuracy."""
    found = (network.coefs_[0], network.intercepts_[0], network.coefs_[1], network.intercepts_[1])
    arrays = {name: np.asarray(one, np.float32) for name, one in zip(PARAMS, found, strict=True)}
    with replacing(path) as partial, partial.open("wb") as content:
        np.savez(content, allow_pickle=False, **{ACCURACY: np.asarray(accuracy)}, **arrays)


def accuracy_of(path: Path) -> np.ndarray:
    """The share that the network in a file reads right, of each thing that it reads."""
    return _read(path)[ACCURACY]


def features(
    path: Path, name: str, shape: tuple[int, int, int], *, exclusive: bool
) -> dj.FeatureNetwork:
    """The network in a file, as one that images are compared by.

    Args:
        path: the file.
        name: of the features.
        shape: (H, W, C) of the images.
        exclusive: whether an image has one class, so that the softmax of the logits is of use;
            else there are no logits.

    Raises:
        ValueError: the file is damaged, is of no classifier, or of images of another size.
        OSError: it cannot be read.
    """
    found = _read(path)
    pixels, dims = found["hidden_kernel"].shape
    if pixels != np.prod(shape):
        raise ValueError(f"{path} is of images of {pixels} numbers, not of shape {shape}")
    return dj.FeatureNetwork(
        name=name,
        apply=one_hidden_layer if exclusive else _without_logits,
        params={
            layer: {one: jnp.asarray(found[f"{layer}_{one}"]) for one in ("kernel", "bias")}
            for layer in ("hidden", "last")
        },
        size=shape[:2],
        channels=shape[2],
        resizing=RESIZINGS["none"],
        dims=dims,
        classes=len(found["last_bias"]) if exclusive else None,
        weights=file_sum(path),
    )


def _read(path: Path) -> dict[str, np.ndarray]:
    found = read_npz(path)
    if missing := sorted({*PARAMS, ACCURACY} - set(found)):
        raise ValueError(f"{path} is no file of a classifier: it lacks {', '.join(missing)}")
    return found


def _without_logits(params: Any, x: Array) -> Outputs:
    return one_hidden_layer(params, x)._replace(logits=None)
