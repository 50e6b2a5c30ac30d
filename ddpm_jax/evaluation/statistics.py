"""Mean and covariance of features, added up batch by batch, and their files.

The statistics of two sets a and b of n_a and n_b rows give those of both together,

    (1)  d = mean_b - mean_a,    n = n_a + n_b,    mean = mean_a + d n_b / n
    (2)  S = S_a + S_b + d d^T n_a n_b / n,        covariance = S / (n - 1)

where S is the sum of (x - mean)(x - mean)^T. All in float64.

Files are those of pytorch-fid: an .npz file with "mu" and "sigma". Ours also have "count" and
"features", which say of how many images and by which network.

Reference: Chan, Golub & LeVeque 1983, doi:10.1080/00031305.1983.10483115.
"""

import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Shaped

from ddpm_jax.hub.files import replacing
from ddpm_jax.hub.npz import read_npz

MEAN, COVARIANCE, COUNT, FEATURES = "mu", "sigma", "count", "features"
SYMMETRIC = 1e-6
"""How far a file's covariance may be from symmetric, relative to its largest number: float32
rounding."""


@dataclass(frozen=True)
class Statistics:
    """Mean and covariance of a set of rows.

    >>> import numpy as np, ddpm_jax as dj
    >>> rows = np.random.default_rng(0).standard_normal((50, 3))
    >>> both = dj.Statistics.of(rows[:20]) + dj.Statistics.of(rows[20:])
    >>> both.count, bool(np.allclose(both.covariance, np.cov(rows.T)))
    (50, True)

    Attributes:
        count: number of rows; None if a file does not say.
        mean: (d,) float64.
        scatter: (d, d) float64, S of (2); of a file without a count, the covariance.
        features: the network, as text; None if a file does not say.
    """

    count: int | None
    mean: Float[np.ndarray, " d"]
    scatter: Float[np.ndarray, "d d"]
    features: str | None = None

    @classmethod
    def of(cls, rows: Shaped[np.ndarray, "n d"], features: str | None = None) -> "Statistics":
        """Of these rows."""
        rows = np.asarray(rows, np.float64)
        mean = rows.mean(0)
        apart = rows - mean
        return cls(len(rows), mean, apart.T @ apart, features)

    def __add__(self, other: "Statistics") -> "Statistics":
        """Equations (1) and (2)."""
        if self.count is None or other.count is None:
            raise ValueError("statistics of an unknown number of images cannot be added")
        count = self.count + other.count
        d = other.mean - self.mean
        mean = self.mean + d * (other.count / count)
        cross = np.outer(d, d * (self.count * other.count / count))
        return Statistics(count, mean, self.scatter + other.scatter + cross, self.features)

    @property
    def covariance(self) -> Float[np.ndarray, "d d"]:
        """The unbiased one."""
        return self.scatter if self.count is None else self.scatter / (self.count - 1)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a file that pytorch-fid reads, too. It appears when it is complete."""
        known = {COUNT: self.count, FEATURES: self.features}
        extra = {name: np.array(value) for name, value in known.items() if value is not None}
        with replacing(Path(path)) as partial, partial.open("wb") as file:
            arrays = {MEAN: self.mean, COVARIANCE: self.covariance, **extra}
            np.savez(file, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Statistics":
        """Reads a file of this class, of pytorch-fid, or of TTUR.

        Raises:
            ValueError: it is no such file, or its numbers are not finite, not symmetric or of
                shapes that do not match.
        """
        try:
            found = read_npz(path)
        except (OSError, ValueError) as error:
            raise ValueError(f"{path} cannot be read as a file of statistics: {error}") from error
        if not {MEAN, COVARIANCE} <= set(found):
            raise ValueError(f"{path} has no statistics: {MEAN} and {COVARIANCE}")
        mean, covariance = (found[name].astype(np.float64) for name in (MEAN, COVARIANCE))
        if fault := _fault(mean, covariance):
            raise ValueError(f"{path}: {fault}")
        count = int(found[COUNT]) if COUNT in found else None
        scatter = covariance if count is None else covariance * (count - 1)
        features = str(found[FEATURES]) if FEATURES in found else None
        return cls(count, mean, scatter, features)


def is_statistics(path: Path) -> bool:
    """Whether a file is one of statistics, by the names in it."""
    if path.suffix.lower() != ".npz" or not path.is_file():
        return False
    try:
        with zipfile.ZipFile(path) as file:
            return {f"{MEAN}.npy", f"{COVARIANCE}.npy"} <= set(file.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def _fault(mean: np.ndarray, covariance: np.ndarray) -> str | None:
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
        return f"{MEAN} has shape {mean.shape} and {COVARIANCE} {covariance.shape}, not (d), (d, d)"
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        return "it has numbers that are not finite"
    if np.abs(covariance - covariance.T).max() > SYMMETRIC * np.abs(covariance).max():
        return f"{COVARIANCE} is not symmetric"
    return None
