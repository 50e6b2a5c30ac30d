"""The feature networks that come with the library, by name.

A new one is a function that makes a `FeatureNetwork`, and a line in `NETWORKS`.

"inception" is FID's, with 2048 features. Its logits leave out the last layer's bias, as the
Inception scores of the literature do.

"digits" is the hidden layer of a classifier of scikit-learn's handwritten digits, 8x8 grey: 64
features, and 10 logits. Its numbers come with the package; it is for tests and for the bundled
model, and compares with nothing published.
"""

import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Sharding
from jaxtyping import Array, Float

from ddpm_jax.evaluation.digits_classifier import CLASSIFIER, read_classifier
from ddpm_jax.evaluation.features import FeatureNetwork, Outputs
from ddpm_jax.evaluation.inception import InceptionV3, read_weights
from ddpm_jax.evaluation.inception.model import CLASSES, FEATURES, SIDE
from ddpm_jax.evaluation.resizing import RESIZINGS
from ddpm_jax.hub.files import file_sum, listed

_INCEPTION = InceptionV3()


def inception_features(
    weights: str | os.PathLike[str] | None = None,
    *,
    resize: str = "pytorch-fid",
    sharding: Sharding | None = None,
) -> FeatureNetwork:
    """FID's Inception-v3.

    Args:
        weights: the file that pytorch-fid or torch-fidelity publish. None: it is downloaded once
            (96 MB) into the user's cache folder.
        resize: how images get 299x299 pixels: as "pytorch-fid", "torch-fidelity" or "clean-fid"
            do, or "none" of images that have them.
        sharding: placement of the params. None: the default device.

    Raises:
        ValueError: there is no such resizing, or the file is not of this network.
        OSError: the file does not exist or cannot be downloaded.

    Examples:
        >>> import ddpm_jax as dj
        >>> network = dj.inception_features("pt_inception-2015-12-05-6726825d.pth")
        Traceback (most recent call last):
        FileNotFoundError: ...there is no such file with weights of Inception-v3
    """
    if resize not in RESIZINGS:
        raise ValueError(f"resize must be one of {listed(RESIZINGS)}, got {resize!r}")
    params, found = read_weights(weights, sharding)
    return FeatureNetwork(
        name="inception",
        apply=_inception,
        params=params,
        size=(SIDE, SIDE),
        channels=3,
        resizing=RESIZINGS[resize],
        dims=FEATURES,
        classes=CLASSES,
        weights=found,
    )


def digits_features(*, sharding: Sharding | None = None) -> FeatureNetwork:
    """The hidden layer of a classifier of handwritten digits, 8x8 grey. It needs no network.

    Args:
        sharding: placement of the params. None: the default device.

    >>> import ddpm_jax as dj
    >>> network = dj.digits_features()
    >>> network.size, network.channels, network.dims
    ((8, 8), 1, 64)
    """
    params = jax.device_put(read_classifier(), sharding)
    return FeatureNetwork(
        name="digits",
        apply=one_hidden_layer,
        params=params,
        size=(8, 8),
        channels=1,
        resizing=RESIZINGS["none"],
        dims=params["hidden"]["kernel"].shape[1],
        classes=params["last"]["kernel"].shape[1],
        weights=file_sum(CLASSIFIER),
    )


NETWORKS: dict[str, Callable[..., FeatureNetwork]] = {
    "inception": inception_features,
    "digits": digits_features,
}
"""All feature networks, by name."""


def _inception(params: Any, x: Float[Array, "b h w 3"]) -> Outputs:
    found: Any = _INCEPTION.apply({"params": params}, x)
    return Outputs(found.features, found.products)


def one_hidden_layer(params: Any, x: Float[Array, "b h w c"]) -> Outputs:
    """Equation (1) of `ddpm_jax.evaluation.digits_classifier`, for images of any shape."""
    hidden, last = params["hidden"], params["last"]
    rows = x.reshape(len(x), -1)
    product = jnp.matmul(rows, hidden["kernel"], precision="highest")
    features = jax.nn.relu(product + hidden["bias"][None])
    logits = jnp.matmul(features, last["kernel"], precision="highest") + last["bias"][None]
    return Outputs(features, logits)
