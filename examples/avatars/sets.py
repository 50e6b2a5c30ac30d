"""Compares sets of pictures by the metrics of `ddpm_jax.evaluation`, on the features of a
classifier of drawn people: these are no FIDs and KIDs of Inception-v3, and compare with no
published number.

The Frechet distance is from drawn pictures of the same people, which shows the most: who the people
are changes nothing. The other metrics take sets for independent, and two pictures of one person are
not: the KID would be below 0, and precision and recall nearly 1. So these, and the Frechet distance
again, are against drawn pictures of other people.

All numbers depend on how many pictures there are. Drawn pictures of the same people, other ones,
have the numbers that can be expected at best.
"""

from collections.abc import Mapping
from textwrap import fill
from typing import Any

import numpy as np

import ddpm_jax as dj
from benchmarks import report

DRAWN, WIDTH = "drawn", 92
SUBSETS = 100
"""Of half the pictures each, for the KID."""


def compared(
    network: dj.FeatureNetwork, images: np.ndarray, same: np.ndarray, others: np.ndarray
) -> dict[str, float]:
    """The Frechet distance of pictures from `same`, and all metrics against `others`.

    Args:
        network: of the features.
        images: of some people.
        same: drawn pictures of the same people.
        others: drawn pictures of other people.
    """
    rows, own, apart = (_rows(network, one) for one in (images, same, others))
    of_rows, of_own, of_apart = (dj.Statistics.of(one) for one in (rows, own, apart))
    kid, spread = dj.kernel_distance(rows, apart, subsets=SUBSETS, subset_size=len(rows) // 2)
    precision, recall = dj.precision_recall(rows, apart)
    return {
        "frechet_same": dj.frechet_distance(of_rows, of_own),
        "frechet": dj.frechet_distance(of_rows, of_apart),
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
    return f"{result['sets_by_scale'][name]['frechet_same']:.2f}"


def lines(result: Mapping[str, Any]) -> list[str]:
    """The comparison as people read it, with all that its numbers depend on."""
    used, num = result["features"], result["prompts"]
    rows = [
        (
            name,
            f"{found['frechet_same']:.2f}",
            f"{found['frechet']:.2f}",
            f"{found['kid']:.3f} ± {found['kid_std']:.3f}",
            f"{found['precision']:.1%}",
            f"{found['recall']:.1%}",
        )
        for name, found in result["sets"].items()
    ]
    columns = ("", "Frechet distance, same people", "other people", "KID", "precision", "recall")
    read = [(trait, f"{share:.1%}") for trait, share in used["accuracy"].items()]
    what = (
        f"{num} generated pictures, and {num} that DiceBear drew of the same people, which have "
        f"the numbers that can be expected at best. The first Frechet distance is from {num} other "
        "drawn pictures of the same people; all else is against drawn pictures of "
        f"{num} other people whose colors no training picture has together."
    )
    how = (
        f"The KID is the mean and the standard deviation over {SUBSETS} pairs of subsets of half "
        "of the pictures; precision and recall are those of three neighbors."
    )
    by = (
        "These are no FIDs and KIDs of Inception-v3, and compare with no published number: the "
        f"features are the {used['dims']} hidden units of a small classifier of drawn people, "
        "scaled to unit variance over those that it learned from. The covariance of the drawn "
        f"pictures has rank {used['rank']}. In drawn people of colors that it has not seen "
        "together the classifier reads right:"
    )
    paragraphs = (
        "## The pictures as a set",
        fill(what, WIDTH),
        report.table(columns, rows),
        fill(how, WIDTH),
        fill(by, WIDTH),
        report.table(("trait", "read right"), read),
    )
    return [line for one in paragraphs for line in (one, "")]
