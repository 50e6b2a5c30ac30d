"""Mean and covariance added up batch by batch, and their files."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ddpm_jax as dj
from ddpm_jax.evaluation.statistics import is_statistics


def rows(n: int = 40, d: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=2, max_size=6), st.sampled_from([0.0, 1e4, -1e7]))
def test_batches_give_what_all_rows_give(sizes: list[int], offset: float) -> None:
    """Far from zero, too, where sums of squares would lose everything."""
    x = rows(sum(sizes)) + offset
    parts = np.split(x, np.cumsum(sizes)[:-1])
    total = dj.Statistics.of(parts[0])
    for part in parts[1:]:
        total = total + dj.Statistics.of(part)
    assert total.count == len(x)
    np.testing.assert_allclose(total.mean, x.mean(0), rtol=1e-13, atol=1e-14)
    close = 1e-12 + 1e-15 * abs(offset)  # of x itself: its last digit
    np.testing.assert_allclose(total.covariance, np.cov(x.T), atol=close, rtol=1e-9)


def test_float32_rows_are_added_in_float64() -> None:
    x = (rows(1000) + 100).astype(np.float32)
    np.testing.assert_allclose(dj.Statistics.of(x).covariance, np.cov(x.T.astype(float)), rtol=1e-9)


def test_a_file_comes_back(tmp_path: Path) -> None:
    written = dj.Statistics.of(rows(), "a network")
    written.save(tmp_path / "s.npz")
    found = dj.Statistics.load(tmp_path / "s.npz")
    assert (found.count, found.features) == (40, "a network")
    np.testing.assert_array_equal(found.mean, written.mean)
    np.testing.assert_allclose(found.covariance, written.covariance, rtol=1e-15)
    assert is_statistics(tmp_path / "s.npz")


def test_files_of_pytorch_fid(tmp_path: Path) -> None:
    """They have two arrays, and not the number of images. pytorch-fid reads these two of ours."""
    x = rows()
    np.savez_compressed(tmp_path / "s.npz", mu=x.mean(0), sigma=np.cov(x.T))
    found = dj.Statistics.load(tmp_path / "s.npz")
    assert (found.count, found.features) == (None, None)
    assert dj.frechet_distance(found, dj.Statistics.of(x)) == pytest.approx(0, abs=1e-12)
    with pytest.raises(ValueError, match="unknown number of images"):
        found + found
    dj.Statistics.of(x).save(tmp_path / "ours.npz")
    with np.load(tmp_path / "ours.npz") as file:
        np.testing.assert_allclose(file["mu"], x.mean(0))
        np.testing.assert_allclose(file["sigma"], np.cov(x.T))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"arr_0": np.ones(2)}, "has no statistics: mu and sigma"),
        ({"mu": np.ones(2), "sigma": np.eye(3)}, r"mu has shape \(2,\) and sigma \(3, 3\)"),
        ({"mu": np.ones((2, 1)), "sigma": np.eye(2)}, "not \\(d\\), \\(d, d\\)"),
        ({"mu": np.array([1, np.nan]), "sigma": np.eye(2)}, "not finite"),
        ({"mu": np.ones(2), "sigma": np.array([[1.0, 2], [0, 1]])}, "not symmetric"),
    ],
)
def test_files_that_are_refused(
    tmp_path: Path, arrays: dict[str, np.ndarray], message: str
) -> None:
    np.savez(tmp_path / "s.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        dj.Statistics.load(tmp_path / "s.npz")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    dj.Statistics.of(rows()).save(tmp_path / "s.npz")
    whole = (tmp_path / "s.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    for name in ("cut.npz", "none.npz"):
        with pytest.raises(ValueError, match=f"{name} cannot be read as a file of statistics"):
            dj.Statistics.load(tmp_path / name)
        assert not is_statistics(tmp_path / name)
    assert not is_statistics(tmp_path)
