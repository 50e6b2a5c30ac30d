"""The kernel distance: the unbiased squared MMD of two sets of features, by a cubic kernel.

    (1)  k(x, y) = (x . y / d + 1)^3,    d = number of features
    (2)  MMD^2 = mean of k(x, x') over x /= x' + mean of k(y, y') over y /= y' - 2 mean of k(x, y)

It is the mean of (2) over random subsets of equal size of both sets, and may be a little below 0.
Unlike the FID it is not too large for few images: only its spread grows.

Reference: Binkowski et al. 2018, arXiv:1801.01401; the subsets are torch-fidelity's.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ddpm_jax.evaluation.metrics.metric import SUBSETS_SEED, Evidence, Metric, check


def kernel_distance(
    samples: Float[np.ndarray, "n d"],
    reference: Float[np.ndarray, "m d"],
    *,
    subsets: int = 100,
    subset_size: int = 1000,
    seed: int = SUBSETS_SEED,
) -> tuple[float, float]:
    """The kernel distance of features, KID: mean and standard deviation of (2) over subsets.

    Args:
        samples: features of one set.
        reference: features of the other set, by the same network.
        subsets: number of subsets of each set.
        subset_size: images in each, drawn without repetition.
        seed: of the subsets.

    Raises:
        ValueError: an option is out of range, or a set has fewer images than a subset.

    >>> import numpy as np, ddpm_jax as dj
    >>> rows = np.random.default_rng(0).standard_normal((300, 4))
    >>> mean, std = dj.kernel_distance(rows[:200], rows[200:], subsets=10, subset_size=50)
    >>> abs(mean) < 0.1 and dj.kernel_distance(rows, rows + 1, subset_size=50)[0] > 1
    True
    """
    from tqdm import tqdm

    options = KernelDistance(subsets=subsets, subset_size=subset_size, seed=seed)
    check(options, len(samples), len(reference))
    random, distances = np.random.RandomState(seed), []
    for _ in tqdm(range(subsets), desc="kid", unit="subset", delay=1):
        chosen = [
            rows[random.choice(len(rows), subset_size, replace=False)].astype(np.float64)
            for rows in (samples, reference)
        ]
        distances.append(_mmd2(*chosen))
    return float(np.mean(distances)), float(np.std(distances))


def _mmd2(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "n d"]) -> float:
    """Equation (2)."""
    return _mean_of_others(x) + _mean_of_others(y) - 2 * float(_kernel(x, y).mean())


def _mean_of_others(x: Float[np.ndarray, "n d"]) -> float:
    kernel, n = _kernel(x, x), len(x)
    return float(kernel.sum() - np.trace(kernel)) / (n * (n - 1))


def _kernel(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"]) -> Float[np.ndarray, "n m"]:
    """Equation (1)."""
    return (x @ y.T / x.shape[1] + 1) ** 3


@dataclass(frozen=True, kw_only=True)
class KernelDistance(Metric):
    """The mean of (2), smaller is better."""

    name = "kid"
    of_samples = frozenset({"features"})
    of_reference = frozenset({"features"})

    subsets: int = 100
    """Number of subsets."""
    subset_size: int = 1000
    """Images in each."""
    seed: int = SUBSETS_SEED
    """Of the subsets."""

    def faults(self, samples: int, reference: int | None) -> Iterator[str]:
        """Options out of range, and subsets larger than a set."""
        if self.subsets < 1 or self.subset_size < 2:
            yield (
                "kid needs one or more subsets of two or more images, "
                f"got {self.subsets} of {self.subset_size}"
            )
        for what, count in (("samples", samples), ("reference images", reference)):
            if count is not None and count < self.subset_size:
                yield (
                    f"kid needs {self.subset_size} {what} for its subsets, got {count}: more "
                    "images, or a smaller subset_size"
                )

    def compute(self, evidence: Evidence) -> dict[str, float]:
        """{"kid", "kid_std"}."""
        mean, std = kernel_distance(
            *evidence.both("features"),
            subsets=self.subsets,
            subset_size=self.subset_size,
            seed=self.seed,
        )
        return {"kid": mean, "kid_std": std}
