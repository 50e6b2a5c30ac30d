"""Compares sets of pictures by the metrics of `ddpm_jax.evaluation`, on the features of a
classifier of drawn people: these are no FIDs and KIDs of Inception-v3, and compare with no
published number.

All numbers depend on how many pictures there are, so both sets have equally many. The Frechet
distance is of 128 features; with more pictures than features their covariance has full rank.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

import ddpm_jax as dj
from benchmarks import report

AGAIN = "drawn again"
SUBSETS = 100
"""Of half the pictures each, for the KID."""


def compared(
    network: dj.FeatureNetwork, images: np.ndarray, reference: np.ndarray
) -> dict[str, float]:
    """The metrics of two sets of as many pictures: the Frechet distance, the KID with its standard
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
    """The Frechet distance of the pictures with a guidance scale, or of those drawn again."""
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
        f"{result['prompts']} pictures against as many that DiceBear drew of the same people:",
        "",
        report.table(("", "Frechet distance", "KID", "precision", "recall"), rows),
        "",
        f'"{AGAIN}": a second picture by DiceBear of each person, of other shapes at random: the',
        "best that can be expected. The KID is the mean and the standard deviation over",
        f"{SUBSETS} pairs of subsets of half the pictures; precision and recall are those of three",
        "neighbors.",
        "",
        "These are no FIDs and KIDs of Inception-v3, and compare with no published number: the",
        f"features are the {used['dims']} hidden units of a small classifier of drawn people, and",
        f"their covariance has rank {used['rank']}. In drawn people of colors that it has not seen",
        "together the classifier reads right:",
        "",
        report.table(("trait", "read right"), read),
        "",
    ]
