"""The classifier of handwritten digits whose hidden layer compares images of digits.

    (1)  hidden = relu(W_1 x + b_1),    logits = W_2 hidden + b_2,    x = 64 pixels in [0, 1]

It is trained on all of scikit-learn's digits, and its numbers come with the package, so that
distances need neither scikit-learn nor its version. To make the file again:

    python -m ddpm_jax.evaluation.digits_classifier

The file was made with scikit-learn 1.9.1. Its digits are the test set of E. Alpaydin and C. Kaynak,
Optical Recognition of Handwritten Digits (UCI, 1998, CC BY 4.0).
"""

from pathlib import Path
from typing import Any

import numpy as np

import weights_convert
from ddpm_jax.hub.files import replacing
from ddpm_jax.hub.hub import BUNDLED

CLASSIFIER = BUNDLED / "digits_classifier.safetensors"
FEATURES = 64
"""Width of the hidden layer."""


def read_classifier() -> dict[str, dict[str, np.ndarray]]:
    """The numbers of (1): {"hidden": {"kernel", "bias"}, "last": {"kernel", "bias"}}, float32."""
    with weights_convert.open_weights(CLASSIFIER) as tensors:
        return weights_convert.to_flax(tensors)


def train(path: Path) -> None:
    """Trains the classifier, and writes its numbers under the names that torch would give them."""
    from safetensors.numpy import save_file
    from sklearn.datasets import load_digits
    from sklearn.neural_network import MLPClassifier

    network = MLPClassifier((FEATURES,), learning_rate_init=0.01, random_state=0)
    pixels, labels = load_digits(return_X_y=True)
    network.fit(np.asarray(pixels) / 16, labels)
    tensors: dict[str, Any] = {}
    for name, kernel, bias in zip(
        ("hidden", "last"), network.coefs_, network.intercepts_, strict=True
    ):
        tensors[f"{name}.weight"] = np.ascontiguousarray(kernel.T.astype(np.float32))
        tensors[f"{name}.bias"] = bias.astype(np.float32)
    with replacing(path) as partial:
        save_file(tensors, partial)


if __name__ == "__main__":
    train(CLASSIFIER)
