"""The metrics against recorded numbers of torch-fidelity, and where the answer is known."""

import numpy as np
import pytest
from goldens import metric_goldens as cases
from scipy.linalg import sqrtm

import ddpm_jax as dj

CLOSE = 1e-9
"""Relative: float64 on both sides."""


@pytest.fixture(scope="module")
def wanted() -> dict[str, float]:
    with np.load(cases.FILE) as file:
        numbers = {name: file[name] for name in file.files if file[name].shape == ()}
    return {name: float(one) for name, one in numbers.items() if one.dtype.kind == "f"}


def statistics(*sets: np.ndarray) -> list[dj.Statistics]:
    return [dj.Statistics.of(rows) for rows in sets]


def test_fid(wanted: dict[str, float]) -> None:
    found = dj.frechet_distance(*statistics(*cases.sets()))
    assert found == pytest.approx(wanted["frechet_inception_distance"], rel=CLOSE)


def test_kid(wanted: dict[str, float]) -> None:
    mean, std = dj.kernel_distance(*cases.sets(), **cases.KID)
    assert mean == pytest.approx(wanted["kernel_inception_distance_mean"], rel=CLOSE)
    assert std == pytest.approx(wanted["kernel_inception_distance_std"], rel=CLOSE)


def test_inception_score(wanted: dict[str, float]) -> None:
    samples, _ = cases.sets()
    mean, std = dj.inception_score(5 * samples.astype(np.float64), splits=cases.SPLITS)
    assert mean == pytest.approx(wanted["inception_score_mean"], rel=CLOSE)
    assert std == pytest.approx(wanted["inception_score_std"], rel=CLOSE)


def test_precision_and_recall(wanted: dict[str, float]) -> None:
    found = dj.precision_recall(*cases.sets(), neighbors=cases.NEIGHBORS)
    # torch-fidelity's means are float32.
    assert found == pytest.approx((wanted["precision"], wanted["recall"]), abs=1e-7)


def gaussian(mean: np.ndarray, root: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Points (100, d) whose mean and covariance (root^2) are exactly these."""
    points = rng.standard_normal((100, len(mean)))
    points -= points.mean(axis=0)
    whiten = np.linalg.inv(np.linalg.cholesky(np.cov(points, rowvar=False))).T
    return points @ whiten @ root + mean


def test_fid_of_gaussians() -> None:
    """Covariances that commute have the distance |difference of means|^2 + |R_a - R_b|^2."""
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    roots = [turn @ np.diag(values) @ turn.T for values in ([1.0, 2.0, 0.5], [3.0, 1.0, 0.5])]
    means = np.array([0.0, 1.0, 2.0]), np.array([1.0, 1.0, -1.0])
    a, b = statistics(*(gaussian(m, r, rng) for m, r in zip(means, roots, strict=True)))
    assert dj.frechet_distance(a, b) == pytest.approx(10 + 5, rel=1e-9)  # rounding of float64
    assert dj.frechet_distance(a, a) == pytest.approx(0, abs=1e-9)


def test_fid_of_any_covariances() -> None:
    """Against scipy's matrix square root."""
    rng = np.random.default_rng(1)
    a, b = (rng.standard_normal((50, 4)) @ rng.standard_normal((4, 4)) for _ in range(2))
    c_a, c_b = np.cov(a.T), np.cov(b.T)
    apart = a.mean(axis=0) - b.mean(axis=0)
    wanted = apart @ apart + np.trace(c_a + c_b - 2 * sqrtm(c_a @ c_b).real)
    found = dj.frechet_distance(*statistics(a, b))
    assert found == pytest.approx(wanted, rel=1e-7)  # sqrtm's own accuracy


def test_fid_where_features_are_dead() -> None:
    """A feature that is always zero has no covariance, whose root must not be NaN."""
    rng = np.random.default_rng(2)
    a, b = (rng.standard_normal((20, 3)) * [1, 0, 2] for _ in range(2))
    found = dj.frechet_distance(*statistics(a, b))
    assert found == pytest.approx(dj.frechet_distance(*statistics(a[:, ::2], b[:, ::2])))


def test_kid_is_unbiased_where_fid_is_not() -> None:
    """Two sets of one distribution: the mean KID is 0 for small subsets, the FID is not."""
    rng = np.random.default_rng(3)
    a, b = rng.standard_normal((2, 2000, 8))
    mean, std = dj.kernel_distance(a, b, subsets=100, subset_size=50)
    assert abs(mean) < 4 * std / np.sqrt(100) + 0.01
    few, many = (dj.frechet_distance(*statistics(a[:n], b[:n])) for n in (50, 2000))
    assert few > 10 * many


def test_the_score_counts_classes() -> None:
    """n classes with certainty, equally often, are n; one class, or no certainty, is 1."""
    sure = 1000 * np.eye(5)[np.arange(100) % 5]
    assert dj.inception_score(sure, splits=1)[0] == pytest.approx(5)
    assert dj.inception_score(sure[:1].repeat(100, 0))[0] == pytest.approx(1)
    assert dj.inception_score(np.zeros((100, 5)))[0] == pytest.approx(1)


def test_precision_and_recall_by_hand() -> None:
    """On a line, with one neighbor: real points 0, 1, 10, 11 have balls of radius 1."""
    real = np.array([[0.0], [1], [10], [11]])
    samples = np.array([[0.5], [1.9], [5], [12.1]])  # their balls: radii 1.4, 1.4, 3.1, 7.1
    precision, recall = dj.precision_recall(samples, real, neighbors=1)
    assert precision == 2 / 4  # 5 and 12.1 are in no ball
    assert recall == 4 / 4  # 0 and 1 near 0.5, 10 and 11 within 7.1 of 12.1


def test_precision_and_recall_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = dj.precision_recall(*cases.sets())
    monkeypatch.setattr("ddpm_jax.evaluation.metrics.precision_recall.BLOCK", 1000)
    assert dj.precision_recall(*cases.sets()) == whole


FEW = np.zeros((5, 3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: dj.kernel_distance(FEW, FEW), "1000 samples for its subsets, got 5"),
        (lambda: dj.kernel_distance(FEW, FEW, subset_size=1), "two or more images, got 100 of 1"),
        (lambda: dj.kernel_distance(FEW, FEW, subsets=0, subset_size=2), "one or more subsets"),
        (lambda: dj.inception_score(FEW), "1 to 5 splits for 5 images, got 10"),
        (lambda: dj.precision_recall(FEW, FEW, neighbors=5), "more than 5 samples"),
        (lambda: dj.precision_recall(FEW, FEW, neighbors=0), "one neighbor or more"),
        (lambda: dj.frechet_distance(*statistics(FEW, FEW[:, :2])), "3 features and the other 2"),
        (lambda: dj.frechet_distance(*statistics(FEW, FEW[:1])), "one image has no covariance"),
    ],
)
def test_refusals(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
