"""The Frechet distance between Gaussians fitted to the features of two sets of images.

    (1)  d(a, b) = |mean a - mean b|^2 + trace(C_a + C_b - 2 (C_a C_b)^(1/2))

With the features of Inception-v3 it is the FID. The trace of (C_a C_b)^(1/2) is that of a symmetric
matrix, so symmetric eigenvalues suffice:

    (2)  trace (C_a C_b)^(1/2) = trace (R C_b R)^(1/2),    R = C_a^(1/2)

d of few images is too large, by an amount that goes as 1 / number of images: compare only numbers
of equally many images. Published ones have 50,000.

Reference: Heusel et al. 2017, arXiv:1706.08500.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ddpm_jax.evaluation.metrics.metric import Evidence, Metric
from ddpm_jax.evaluation.statistics import Statistics


def frechet_distance(a: Statistics, b: Statistics) -> float:
    """The Frechet distance between Gaussians fitted to two sets of features: (1), in float64.

    Args:
        a: of one set of images.
        b: of the other; by features of the same network.

    Raises:
        ValueError: the features are not equally many, or one set has a single image.

    >>> import numpy as np, ddpm_jax as dj
    >>> rows = np.random.default_rng(0).standard_normal((50, 3))
    >>> a, b = dj.Statistics.of(rows), dj.Statistics.of(rows + [0, 3, 4])
    >>> round(dj.frechet_distance(a, b), 6)
    25.0
    """
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"one set has {len(a.mean)} features and the other {len(b.mean)}")
    if 1 in (a.count, b.count):
        raise ValueError("one image has no covariance: two or more are needed")
    c_a, c_b = a.covariance, b.covariance
    root = _root(c_a)
    cross = np.sqrt(np.linalg.eigvalsh(root @ c_b @ root).clip(min=0)).sum()
    apart = a.mean - b.mean
    return float(apart @ apart + np.trace(c_a) + np.trace(c_b) - 2 * cross)


def _root(matrix: Float[np.ndarray, "d d"]) -> Float[np.ndarray, "d d"]:
    """The symmetric square root of a covariance; negative eigenvalues are rounding."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(values.clip(min=0))) @ vectors.T


@dataclass(frozen=True, kw_only=True)
class FrechetDistance(Metric):
    """The distance (1), from 0, smaller is better."""

    name = "fid"
    of_samples = frozenset({"statistics"})
    of_reference = frozenset({"statistics"})

    def faults(self, samples: int, reference: int | None) -> Iterator[str]:
        """A set of one image."""
        if min(samples, 2 if reference is None else reference) < 2:
            yield "fid needs two or more images of each set"

    def compute(self, evidence: Evidence) -> dict[str, float]:
        """{"fid"}."""
        return {"fid": frechet_distance(*evidence.both("statistics"))}
