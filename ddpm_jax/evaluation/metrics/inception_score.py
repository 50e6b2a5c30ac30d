"""The Inception score: whether each image shows one class, and all together many.

    (1)  IS = exp(mean over x of KL(p(y|x) || p(y))),    p(y) = mean over x of p(y|x)

p(y|x) is the softmax of the network's logits. The images are shuffled and cut into splits; the
score is the mean of (1) over the splits. It looks at no real image: copies of one per class are
perfect.

Reference: Salimans et al. 2016, arXiv:1606.03498; the order and the splits are torch-fidelity's.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ddpm_jax.evaluation.metrics.metric import SUBSETS_SEED, Evidence, Metric, check


def inception_score(
    logits: Float[np.ndarray, "n classes"], *, splits: int = 10, seed: int = SUBSETS_SEED
) -> tuple[float, float]:
    """The Inception score of logits: mean and standard deviation of (1) over splits.

    Args:
        logits: one row for each image.
        splits: number of parts.
        seed: of the order.

    Raises:
        ValueError: there are no splits, or fewer images than splits.

    >>> import numpy as np, ddpm_jax as dj
    >>> dj.inception_score(100 * np.eye(4)[np.arange(400) % 4], splits=1)
    (4.0, 0.0)
    """
    check(InceptionScore(splits=splits, seed=seed), len(logits), None)
    n = len(logits)
    rows = logits[np.random.RandomState(seed).permutation(n)]
    scores = [_score(rows[i * n // splits : (i + 1) * n // splits]) for i in range(splits)]
    return float(np.mean(scores)), float(np.std(scores))


def _score(logits: Float[np.ndarray, "n classes"]) -> float:
    """Equation (1)."""
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    p = np.exp(log_p)
    # p(y) may underflow to 0, where every p(y|x) does, too, and adds nothing.
    log_mean = np.log(np.maximum(p.mean(0), np.finfo(np.float64).tiny))
    return float(np.exp((p * (log_p - log_mean)).sum(1).mean()))


@dataclass(frozen=True, kw_only=True)
class InceptionScore(Metric):
    """The score (1), from 1 to the number of classes, larger is better."""

    name = "is"
    of_samples = frozenset({"logits"})

    splits: int = 10
    """Number of parts."""
    seed: int = SUBSETS_SEED
    """Of the order."""

    def faults(self, samples: int, reference: int | None) -> Iterator[str]:
        """Splits without images."""
        if not 1 <= self.splits <= samples:
            yield f"is needs 1 to {samples} splits for {samples} images, got {self.splits}"

    def compute(self, evidence: Evidence) -> dict[str, float]:
        """{"is", "is_std"}."""
        assert evidence.samples is not None
        assert evidence.samples.logits is not None
        mean, std = inception_score(evidence.samples.logits, splits=self.splits, seed=self.seed)
        return {"is": mean, "is_std": std}
