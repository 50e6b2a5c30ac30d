"""Improved precision and recall: do samples look real, and does every real image have samples near?

The manifold of a set X is the union of balls around its points, each as wide as the distance to the
point's k-th nearest neighbor in X:

    (1)  f(y, X) = 1 if |y - x| <= |x - NN_k(x, X)| for some x of X, else 0
    (2)  precision = mean over samples y of f(y, real)
    (3)  recall = mean over real images y of f(y, samples)

Both depend on the number of images: compare only numbers of equally many.

Reference: Kynkaanniemi et al. 2019, arXiv:1904.06991. There the features are those of VGG-16.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ddpm_jax.evaluation.metrics.metric import Evidence, Metric, check

BLOCK = 2**24
"""Distances in memory at a time: 128 MB."""

Rows = Float[np.ndarray, "n d"]


def precision_recall(
    samples: Float[np.ndarray, "n d"], reference: Float[np.ndarray, "m d"], *, neighbors: int = 3
) -> tuple[float, float]:
    """Improved precision and recall of features: (2) and (3), with distances in float64.

    Args:
        samples: features of the generated images.
        reference: features of the real images, by the same network.
        neighbors: k.

    Raises:
        ValueError: k is below 1, or a set has no more than k images.

    >>> import numpy as np, ddpm_jax as dj
    >>> real = np.random.default_rng(0).standard_normal((500, 2))
    >>> near_one_point = real[:1] + 1e-3 * real
    >>> precision, recall = dj.precision_recall(near_one_point, real)
    >>> precision > 0.9, recall < 0.1
    (True, True)
    """
    check(PrecisionRecall(neighbors=neighbors), len(samples), len(reference))
    x, y = samples.astype(np.float64), reference.astype(np.float64)
    near_x, near_y = _radii(x, neighbors), _radii(y, neighbors)
    real, covered = np.zeros(len(x), bool), np.zeros(len(y), bool)
    for block, squares in _squared_distances(x, y, "precision and recall"):
        real[block] = (squares <= near_y[None]).any(1)
        covered |= (squares <= near_x[block, None]).any(0)
    return float(real.mean()), float(covered.mean())


def _radii(x: Rows, neighbors: int) -> Float[np.ndarray, " n"]:
    """The squared distance of each point to its k-th neighbor; the point itself is the 0th."""
    found = np.empty(len(x))
    for block, squares in _squared_distances(x, x, "neighbors"):
        found[block] = np.partition(squares, neighbors, axis=1)[:, neighbors]
    return found


def _squared_distances(
    x: Rows, y: Float[np.ndarray, "m d"], what: str
) -> Iterator[tuple[slice, Float[np.ndarray, "b m"]]]:
    """|x - y|^2 in blocks of rows."""
    from tqdm import tqdm

    of_x, of_y = (np.square(rows).sum(1) for rows in (x, y))
    size = max(1, BLOCK // len(y))
    for start in tqdm(range(0, len(x), size), desc=what, unit="block", delay=1):
        block = slice(start, start + size)
        squares = of_x[block, None] + of_y[None] - 2 * (x[block] @ y.T)
        yield block, np.maximum(squares, 0)


@dataclass(frozen=True, kw_only=True)
class PrecisionRecall(Metric):
    """Precision (2) and recall (3), from 0 to 1, larger is better."""

    name = "pr"
    of_samples = frozenset({"features"})
    of_reference = frozenset({"features"})

    neighbors: int = 3
    """k of (1)."""

    def faults(self, samples: int, reference: int | None) -> Iterator[str]:
        """K out of range."""
        if self.neighbors < 1:
            yield f"pr needs one neighbor or more, got {self.neighbors}"
        for what, count in (("samples", samples), ("reference images", reference)):
            if count is not None and count <= self.neighbors:
                yield f"pr needs more than {self.neighbors} {what} for its neighbors, got {count}"

    def compute(self, evidence: Evidence) -> dict[str, float]:
        """{"precision", "recall"}."""
        precision, recall = precision_recall(*evidence.both("features"), neighbors=self.neighbors)
        return {"precision": precision, "recall": recall}
