"""Are these images digits? Classifiers of scikit-learn's real digits judge generated ones.

The 1,797 real digits are cut into halves A and B, each with the same share of every class, in
several ways. Three questions:

1. Readable. A support vector machine learns A, its probabilities calibrated within A. Which share
   of the images does it read with a probability above 0.9? At least that of the real images of B,
   which it has not seen either. Means over all cuts, and over both halves as the one to learn.
2. Diverse. Which share of the images does it read as each class? Each between 5 % and 15 %.
3. Alike. The Frechet distance d (`metrics.fid`) of two sets of images, the features being the
   hidden layer of a network trained to tell the real digits apart (`digits_classifier`). At most

       (1)  mean of d(images, A) and d(images, B)  <=  1.5 d(A, B),

   means over all cuts. d is too large by an amount that goes as 1 / number of images. So all three
   distances are taken between sets of one size: that of a half, or of the images if they are fewer.
   A and B have each class equally often, and generated classes vary. So perfect images have a ratio
   somewhat above 1, and copies of real ones have one below 1.

Needs scikit-learn: pip install 'ddpm-jax[evaluation]'.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from ddpm_jax.evaluation.digits_classifier import read_classifier
from ddpm_jax.evaluation.metrics.fid import frechet_distance
from ddpm_jax.evaluation.statistics import Statistics
from ddpm_jax.extras import check_installed

if TYPE_CHECKING:
    from sklearn.calibration import CalibratedClassifierCV

SURE = 0.9
"""Probability above which an image counts as read."""
LEAST_SHARE, MOST_SHARE = 0.05, 0.15
"""Of one class; a tenth each would be even."""
MOST_DISTANCE = 1.5
"""The factor of (1)."""

GAMMA = 0.256
"""Of the support vector machine's kernel; scikit-learn's example has 0.001 for pixels 0 to 16."""


class Digits(NamedTuple):
    """Images with pixels in [0, 1], and their classes 0 to 9."""

    images: Float[np.ndarray, "n 64"]
    labels: Int[np.ndarray, "n"]


def real_digits() -> Digits:
    """All of scikit-learn's digits.

    Raises:
        ImportError: scikit-learn is not installed.
    """
    check_installed(("sklearn",), "the judge of digits", "evaluation")
    from sklearn.datasets import load_digits

    data: Any = load_digits()
    return Digits(data.data / 16, data.target)


def halves(digits: Digits, seed: int) -> tuple[Digits, Digits]:
    """Two halves with equal shares of each class."""
    from sklearn.model_selection import train_test_split

    parts: Any = train_test_split(*digits, test_size=0.5, stratify=digits.labels, random_state=seed)
    a, b, labels_a, labels_b = parts
    return Digits(a, labels_a), Digits(b, labels_b)


def distance(a: Float[np.ndarray, "n d"], b: Float[np.ndarray, "m d"]) -> float:
    """The Frechet distance of two sets of features."""
    return frechet_distance(Statistics.of(a), Statistics.of(b))


@dataclass(frozen=True)
class Judge:
    """Classifiers of the real digits. Each is trained once, at its first use.

    Attributes:
        digits: the real ones.
        cuts: number of ways to cut them into halves.
    """

    digits: Digits
    cuts: int = 5

    def verdict(self, images: np.ndarray) -> dict[str, dict[str, Any]]:
        """The answers to all three questions, each with "passed".

        Args:
            images: (n, 8, 8, 1) or (n, 64), pixels in [0, 1].

        Raises:
            ValueError: fewer than two images, another shape, or pixels out of range.
        """
        rows = _rows(images)
        return {
            "readable": self.readable(rows),
            "diverse": self.diverse(rows),
            "alike": self.alike(rows),
        }

    def readable(self, images: Float[np.ndarray, "n 64"]) -> dict[str, Any]:
        """Question 1."""
        shares = [(_sure(svm, images), _sure(svm, unseen.images)) for svm, unseen in self.readers]
        generated, real = np.mean(shares, axis=0)
        spread = np.std(np.subtract(*zip(*shares, strict=True)))
        return {
            "generated": float(generated),
            "held_out_real": float(real),
            "spread_of_difference": float(spread),
            "passed": bool(generated >= real),
        }

    def diverse(self, images: Float[np.ndarray, "n 64"]) -> dict[str, Any]:
        """Question 2."""
        read = [np.bincount(svm.predict(images), minlength=10) for svm, _ in self.readers]
        shares = np.mean(read, axis=0) / len(images)
        within = (shares >= LEAST_SHARE) & (shares <= MOST_SHARE)
        real = np.bincount(self.digits.labels, minlength=10) / len(self.digits.labels)
        return {"shares": shares.tolist(), "real": real.tolist(), "passed": bool(within.all())}

    def alike(self, images: Float[np.ndarray, "n 64"]) -> dict[str, Any]:
        """Question 3."""
        size = min(len(images), len(self.digits.labels) // 2)
        distances = np.array(list(self._distances(self.features(images[:size]), size)))
        generated, real = distances.mean(axis=0)
        ratios = distances[:, 0] / distances[:, 1]
        return {
            "size": size,
            "to_halves": float(generated),
            "between_halves": float(real),
            "ratio": float(generated / real),
            "spread_of_ratio": float(ratios.std()),
            "passed": bool(generated <= MOST_DISTANCE * real),
        }

    def features(self, images: Float[np.ndarray, "n 64"]) -> Float[np.ndarray, "n d"]:
        """The hidden layer of the classifier that comes with the package."""
        kernel, bias = (self.hidden[name].astype(np.float64) for name in ("kernel", "bias"))
        return np.maximum(images @ kernel + bias, 0)

    @cached_property
    def hidden(self) -> dict[str, np.ndarray]:
        """The numbers of that layer."""
        return read_classifier()["hidden"]

    @cached_property
    def pairs(self) -> list[tuple[Digits, Digits]]:
        """The cuts."""
        return [halves(self.digits, seed) for seed in range(self.cuts)]

    @cached_property
    def readers(self) -> "list[tuple[CalibratedClassifierCV, Digits]]":
        """Support vector machines, each with the half that it has not seen."""
        return [(_reader(seen), unseen) for a, b in self.pairs for seen, unseen in ((a, b), (b, a))]

    def _distances(
        self, generated: Float[np.ndarray, "n d"], size: int
    ) -> Iterator[tuple[float, float]]:
        """For each cut the two sides of (1), without the factor."""
        for pair in self.pairs:
            a, b = (self.features(half.images[:size]) for half in pair)
            mean = (distance(generated, a) + distance(generated, b)) / 2
            yield mean, distance(a, b)


def passed(verdict: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether all three answers are good."""
    return all(answer["passed"] for answer in verdict.values())


def _reader(digits: Digits) -> "CalibratedClassifierCV":
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.svm import SVC

    # scikit-learn has no types: pyright takes those of the defaults.
    svm = SVC(gamma=GAMMA)  # pyright: ignore[reportArgumentType]
    reader = CalibratedClassifierCV(svm, cv=5, ensemble=False)  # pyright: ignore[reportArgumentType]
    return reader.fit(*digits)


def _sure(reader: "CalibratedClassifierCV", images: Float[np.ndarray, "n 64"]) -> float:
    return float((reader.predict_proba(images).max(axis=1) > SURE).mean())


def _rows(images: np.ndarray) -> Float[np.ndarray, "n 64"]:
    """Images as rows in float64."""
    if images.shape[1:] not in ((8, 8, 1), (64,)) or len(images) < 2:
        raise ValueError(f"two or more images of shape (8, 8, 1) are needed, got {images.shape}")
    if not (np.isfinite(images).all() and images.min() >= 0 and images.max() <= 1):
        raise ValueError("pixels must be finite numbers in [0, 1]")
    return images.reshape(len(images), 64).astype(np.float64)
