"""Features of images by any network, in batches of one size over all local devices.

What a metric needs is collected on the way: statistics are added up, and rows are kept only where
a metric compares rows.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import numpy as np
from jax.sharding import NamedSharding
from jaxtyping import Array, Float, Float32

from ddpm_jax.evaluation.resizing import Batches, Pixels, Resizing, Size
from ddpm_jax.evaluation.statistics import Statistics

Need: TypeAlias = Literal["statistics", "features", "logits"]
"""What is collected: sums of features, features themselves, or scores of classes."""


class Outputs(NamedTuple):
    """A network's outputs for a batch.

    Attributes:
        features: the rows that images are compared by.
        logits: scores of classes, whose softmax are probabilities; None without classes.
    """

    features: Float[Array, "b d"]
    logits: Float[Array, "b classes"] | None


@dataclass(frozen=True, kw_only=True)
class FeatureNetwork:
    """A network that images are compared by, and how they are brought to its input.

    >>> import numpy as np, ddpm_jax as dj
    >>> network = dj.digits_features()
    >>> images = np.zeros((10, 8, 8, 1), np.uint8)
    >>> dj.collect_features(network, [images], needs=["features"]).features.shape
    (10, 64)

    Attributes:
        name: such as "inception".
        apply: apply(params, x) -> `Outputs`, for x (b, h, w, c) float32 of `size`. Define it once:
            it is compiled for each function object.
        params: a pytree, its first argument.
        size: height and width of its input.
        channels: of its input, 1 or 3. Grey images become three equal channels.
        resizing: how images get that size, one of `RESIZINGS`.
        dims: number of features.
        classes: number of logits; None without them.
        weights: which weights these are, such as a checksum.
    """

    name: str
    apply: Callable[[Any, Any], Outputs]
    params: Any
    size: Size
    channels: int
    resizing: Resizing
    dims: int
    classes: int | None
    weights: str

    @property
    def description(self) -> str:
        """All that decides the features, as text: files of statistics have it."""
        return f"{self.name} {self.weights} {self.resizing.name}"

    def fault(self, shape: tuple[int, ...]) -> str | None:
        """Why it cannot take images (h, w, c), or None."""
        if shape[2] not in (1, self.channels):
            return f"they have {shape[2]} channels, and {self.name} takes {self.channels}"
        return self.resizing.fault(shape, self.size)


@dataclass(frozen=True)
class Collected:
    """What was collected of a set of images; None for what was not asked for.

    Attributes:
        count: number of images; None if a file of statistics does not say.
        statistics: mean and covariance of the features.
        features: one row for each image.
        logits: one row for each image.
    """

    count: int | None
    statistics: Statistics | None = None
    features: Float32[np.ndarray, "n d"] | None = None
    logits: Float32[np.ndarray, "n classes"] | None = None


def collect_features(
    network: FeatureNetwork,
    batches: Batches,
    needs: Collection[Need] = ("statistics", "features", "logits"),
    *,
    batch_size: int | None = None,
    split: NamedSharding | None = None,
) -> Collected:
    """Runs the network over a set of images.

    Args:
        network: the network. Its params must be where the batches are.
        batches: uint8 images (b, h, w, c), all of one shape but for b.
        needs: what to collect: "statistics", "features", "logits".
        batch_size: images computed together; smaller batches are padded. None: the size of the
            first batch.
        split: of a batch over devices, whose number must divide `batch_size`. None: one device.

    Raises:
        ValueError: the network cannot take the images, has no logits, or its features are not
            finite; or there is no image.

    Examples:
        >>> import numpy as np, ddpm_jax as dj
        >>> images = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 1), np.uint8)
        >>> found = dj.collect_features(dj.digits_features(), [images[:8], images[8:]])
        >>> found.count, found.statistics.mean.shape, found.logits.shape
        (12, (64,), (12, 10))
    """
    if "logits" in needs and network.classes is None:
        raise ValueError(f"{network.name} has no classes, which the Inception score needs")
    statistics: Statistics | None = None
    kept: dict[str, list[np.ndarray]] = {"features": [], "logits": []}
    count = 0
    for features, logits in _run(network, batches, batch_size, split):
        count += len(features)
        if not np.isfinite(features).all():
            raise ValueError(f"features by {network.name} are not finite: NaN or infinity")
        if "statistics" in needs:
            own = Statistics.of(features, network.description)
            statistics = own if statistics is None else statistics + own
        for name, rows in (("features", features), ("logits", logits)):
            if name in needs and rows is not None:
                kept[name].append(rows)
    if not count:
        raise ValueError("there is no image to take features of")
    joined = {name: np.concatenate(rows) for name, rows in kept.items() if rows}
    return Collected(count, statistics, joined.get("features"), joined.get("logits"))


def _run(
    network: FeatureNetwork,
    batches: Batches,
    batch_size: int | None,
    split: NamedSharding | None,
) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """The outputs of each batch. The next one is read while the devices compute."""
    waiting: tuple[Outputs, int] | None = None
    for images in batches:
        batch_size = batch_size or len(images)
        started = _start(network, images, batch_size, split), len(images)
        if waiting is not None:
            yield _on_host(*waiting)
        waiting = started
    if waiting is not None:
        yield _on_host(*waiting)


def _start(
    network: FeatureNetwork, images: Pixels, batch_size: int, split: NamedSharding | None
) -> Outputs:
    if images.dtype != np.uint8 or images.ndim != 4:
        raise ValueError(
            f"images must be uint8 of shape (b, h, w, c), got {images.dtype} of {images.shape}"
        )
    if fault := network.fault(images.shape[1:]):
        raise ValueError(f"the images do not suit the features: {fault}")
    if images.shape[3] < network.channels:
        images = np.repeat(images, network.channels, axis=3)
    resized = network.resizing.on_host(images, network.size)
    padded = np.concatenate([resized, np.repeat(resized[-1:], batch_size - len(resized), axis=0)])
    placed = jax.device_put(padded, split)
    return _outputs(network.apply, network.resizing, network.size, network.params, placed)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _outputs(
    apply: Callable[[Any, Any], Outputs], resizing: Resizing, size: Size, params: Any, images: Array
) -> Outputs:
    return apply(params, resizing.on_device(images, size))


def _on_host(outputs: Outputs, count: int) -> tuple[np.ndarray, np.ndarray | None]:
    features, logits = jax.device_get(outputs)
    return features[:count], None if logits is None else logits[:count]
