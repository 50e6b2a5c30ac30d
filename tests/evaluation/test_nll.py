"""Bits per dimension of a set of images do not depend on its batches."""

import jax
import numpy as np
import pytest

import ddpm_jax as dj
from ddpm_jax.evaluation.levels import from_uint8
from ddpm_jax.evaluation.nll import bits_of_set
from tests.evaluation.normal import chain, epsilon, params_of, pixels

STD = 0.3
SCHEDULER = chain(12)
PARAMS = params_of(SCHEDULER, STD)
KEY = jax.random.key(3)
IMAGES = np.rint(pixels(0, (5, 4, 3, 1), STD) * 127.5 + 127.5).astype(np.uint8)


def bound(x0: np.ndarray, keys: jax.Array) -> jax.Array:
    return dj.variational_bound(epsilon, PARAMS, SCHEDULER, x0, keys).total


def nan_for_one(x0: np.ndarray, keys: jax.Array) -> np.ndarray:
    """NaN for the image IMAGES[3] alone."""
    same = np.abs(x0 - from_uint8(IMAGES[3:4])).max((1, 2, 3)) == 0
    return np.where(same, np.nan, 1.0)


def test_a_set_in_batches() -> None:
    found = bits_of_set(bound, [IMAGES[:3], IMAGES[3:]], KEY, progress=False)
    expected = np.asarray(bound(from_uint8(IMAGES), dj.sample_keys(KEY, 5)), np.float64)
    np.testing.assert_allclose(found.bits_per_dim, expected, rtol=1e-5)
    assert found.mean == pytest.approx(expected.mean(), rel=1e-5)
    assert found.standard_error == pytest.approx(expected.std() / 2, rel=1e-3)  # n - 1 = 4


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one image"):
        bits_of_set(bound, [], KEY, progress=False)
    with pytest.raises(ValueError, match="the bits of image 3 are not finite"):
        bits_of_set(nan_for_one, [IMAGES[:2], IMAGES[2:4]], KEY, progress=False)
    with pytest.raises(ValueError, match="a batch has 3 images, and 2 are computed together"):
        bits_of_set(nan_for_one, [IMAGES[:2], IMAGES[2:]], KEY, progress=False)


def test_every_pixel_has_its_level() -> None:
    x0 = from_uint8(np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1))
    assert np.array_equal(dj.to_uint8(np.clip(x0 / 2 + 0.5, 0, 1)).ravel(), np.arange(256))
    assert x0.min() == -1
    assert x0.max() == 1
