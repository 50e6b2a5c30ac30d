"""Compares sets of pictures by the metrics of `ddpm_jax.evaluation`, on the features of a
classifier of drawn people: these are no FIDs and KIDs of Inception-v3, and compare with no
published number.

The two sets are of different people. Two pictures of one person are nearer than those of two, so
sets of the same people would have a KID below 0, and precision and recall of nearly 1.

All numbers depend on how many pictures there are: a set of drawn ones of the same people as the
generated ones, against the same reference, shows what they can reach.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

import ddpm_jax as dj
from benchmarks import report

DRAWN = "drawn"
SUBSETS = 100
"""Of half the pictures each, for the KID."""


def compared(
    network: dj.FeatureNetwork, images: np.ndarray, reference: np.ndarray
) -> dict[str, float]:
    """The metrics of two sets of pictures: the Frechet distance, the KID with its standard
    deviation over subsets, precision and recall."""
    rows, wanted = (_rows(network, one) for one in (images, reference))
    statistics = (dj.Statistics.of(one) for one in (rows, wanted))
    kid, spread = dj.kernel_distance(rows, wanted, subsets=SUBSETS, subset_size=len(rows) // 2)
    precision, recall = dj.precision_recall(rows, wanted)
    return {
        "frechet": dj.frechet_distance(*statistics),
        "kid": kid,
        "kid_std": spread,
        "precision": precision,
        "recall": recall,
    }


def rank(network: dj.FeatureNetwork, images: np.ndarray) -> int:
    """Of the covariance of the features of pictures."""
    return int(np.linalg.matrix_rank(dj.Statistics.of(_rows(network, images)).covariance))


def _rows(network: dj.FeatureNetwork, images: np.ndarray) -> np.ndarray:
    found = dj.collect_features(network, [images], ["features"]).features
    assert found is not None
    return found


def distance(result: Mapping[str, Any], name: str) -> str:
    """The Frechet distance of the pictures with a guidance scale, or of drawn ones."""
    return f"{result['sets_by_scale'][name]['frechet']:.2f}"


def lines(result: Mapping[str, Any]) -> list[str]:
    """The comparison as people read it, with all that its numbers depend on."""
    used = result["features"]
    rows = [
        (
            name,
            f"{found['frechet']:.2f}",
            f"{found['kid']:.4f} ± {found['kid_std']:.4f}",
            f"{found['precision']:.1%}",
            f"{found['recall']:.1%}",
        )
        for name, found in result["sets"].items()
    ]
    read = [(trait, f"{share:.1%}") for trait, share in used["accuracy"].items()]
    return [
        "## The pictures as a set",
        "",
        f"{result['prompts']} generated pictures, and as many that DiceBear drew of the same people,",
        "which is the best that can be expected, against as many that DiceBear drew of others whose",
        "colors no training picture has together:",
        "",
        report.table(("", "Frechet distance", "KID", "precision", "recall"), rows),
        "",
        f"The KID is the mean and the standard deviation over {SUBSETS} pairs of subsets of half of",
        "the pictures; precision and recall are those of three neighbors.",
        "",
        "These are no FIDs and KIDs of Inception-v3, and compare with no published number: the",
        f"features are the {used['dims']} hidden units of a small classifier of drawn people, scaled",
        "to unit variance over those that it learned from. The covariance of the drawn pictures has",
        f"rank {used['rank']}. In drawn people of colors that it has not seen together the classifier",
        "reads right:",
        "",
        report.table(("trait", "read right"), read),
        "",
    ]
