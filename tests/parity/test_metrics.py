"""The numbers of pytorch-fid and torch-fidelity from the same features."""

import numpy as np
import pytest
import torch

import ddpm_jax as dj
from tests.parity import inception_peers as peers

peers.torchvision()

from pytorch_fid.fid_score import calculate_frechet_distance  # noqa: E402
from torch_fidelity.metric_fid import (  # noqa: E402
    fid_features_to_statistics,
    fid_statistics_to_metric,
)
from torch_fidelity.metric_isc import isc_features_to_metric  # noqa: E402
from torch_fidelity.metric_kid import kid_features_to_metric  # noqa: E402
from torch_fidelity.metric_prc import prc_features_to_metric  # noqa: E402

CLOSE = 1e-9
"""Relative: float64, but for the square root, whose own accuracy is 1e-7."""


def features(n: int, d: int, seed: int) -> np.ndarray:
    """Correlated, skew rows in float32 with dead features, as Inception's are."""
    rng = np.random.default_rng(seed)
    mix = rng.standard_normal((d, d)) / np.sqrt(d)
    rows = np.maximum(rng.standard_normal((n, d)) @ mix + 0.2 * (seed % 3), 0)
    rows[:, :2] = 0
    return rows.astype(np.float32)


@pytest.mark.filterwarnings("ignore:The `disp` argument:DeprecationWarning")  # pytorch-fid's call
@pytest.mark.parametrize(("n", "m", "d"), [(300, 400, 16), (600, 500, 128), (100, 700, 200)])
def test_fid(n: int, m: int, d: int) -> None:
    """Of many images, and of fewer than features, whose covariance has no full rank."""
    a, b = (features(count, d, seed).astype(np.float64) for count, seed in ((n, 1), (m, 2)))
    stats = [fid_features_to_statistics(torch.from_numpy(rows)) for rows in (a, b)]
    theirs = fid_statistics_to_metric(*stats, verbose=False)["frechet_inception_distance"]
    found = dj.frechet_distance(dj.Statistics.of(a), dj.Statistics.of(b))
    assert found == pytest.approx(theirs, rel=1e-6)
    if min(n, m) > d:  # scipy's root of a matrix without full rank has errors of its own
        (mu1, c1), (mu2, c2) = ((s["mu"][2:], s["sigma"][2:, 2:]) for s in stats)  # none is dead
        assert found == pytest.approx(calculate_frechet_distance(mu1, c1, mu2, c2), rel=1e-6)


@pytest.mark.parametrize(("subsets", "size", "seed"), [(10, 50, 2020), (100, 200, 3), (1, 300, 0)])
def test_kid(subsets: int, size: int, seed: int) -> None:
    a, b = features(300, 64, 1), features(410, 64, 2)
    theirs = kid_features_to_metric(
        torch.from_numpy(a).double(),
        torch.from_numpy(b).double(),
        kid_subsets=subsets,
        kid_subset_size=size,
        rng_seed=seed,
        verbose=False,
    )
    mean, std = dj.kernel_distance(a, b, subsets=subsets, subset_size=size, seed=seed)
    assert mean == pytest.approx(theirs["kernel_inception_distance_mean"], rel=CLOSE)
    assert std == pytest.approx(theirs["kernel_inception_distance_std"], rel=CLOSE, abs=1e-15)


@pytest.mark.parametrize(("n", "splits", "seed"), [(100, 10, 2020), (1003, 7, 1), (50, 1, 2)])
def test_inception_score(n: int, splits: int, seed: int) -> None:
    logits = 5 * features(n, 40, 4)
    theirs = isc_features_to_metric(torch.from_numpy(logits), splits, rng_seed=seed)
    mean, std = dj.inception_score(logits, splits=splits, seed=seed)
    assert mean == pytest.approx(theirs["inception_score_mean"], rel=CLOSE)
    assert std == pytest.approx(theirs["inception_score_std"], rel=CLOSE, abs=1e-12)


@pytest.mark.parametrize("neighbors", [1, 3, 5])
def test_precision_and_recall(neighbors: int) -> None:
    """Shares of images, so they are equal or an image is judged otherwise."""
    for seed in range(1, 6):
        a, b = features(300, 12, seed), features(350, 12, seed + 7)
        theirs = prc_features_to_metric(
            torch.from_numpy(a).double(),
            torch.from_numpy(b).double(),
            prc_neighborhood=neighbors,
            verbose=False,
        )
        found = dj.precision_recall(a, b, neighbors=neighbors)
        wanted = theirs["precision"], theirs["recall"]
        assert found == pytest.approx(wanted, abs=1e-6)
        assert 0.05 < min(wanted) < 0.98
