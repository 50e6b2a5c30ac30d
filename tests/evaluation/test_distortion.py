"""Rate and distortion of progressive compression, on normal data in closed form."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import ddpm_jax as dj
from ddpm_jax.evaluation.drawing import decoding_strip, draw_rate_distortion
from tests.evaluation.normal import chain, epsilon, keys_of, params_of, pixels

STD, STEPS = 0.3, 20
SHAPE = (31, 33, 1)
SCHEDULER = chain(STEPS)
PARAMS = params_of(SCHEDULER, STD)
X0 = pixels(0, (2, *SHAPE), STD)
KEYS = keys_of(2)


@pytest.fixture(scope="module")
def bound() -> dj.VariationalBound:
    return dj.variational_bound(epsilon, PARAMS, SCHEDULER, X0, KEYS)


def test_rates_add_up_the_terms_that_were_received(bound: dj.VariationalBound) -> None:
    """Once a receiver has x_t: L_T, and the terms above t. Table 4's last row lacks L_0 alone."""
    curve = dj.rate_distortion(bound)
    assert curve.timesteps.tolist() == list(range(STEPS - 1, -1, -1))
    np.testing.assert_array_equal(curve.rate[:, 0], np.float64(bound.prior))
    assert np.all(np.diff(curve.rate, axis=1) > 0)
    np.testing.assert_allclose(curve.rate[:, -1], bound.total - bound.terms[:, 0], rtol=1e-5)
    for i, t in enumerate(curve.timesteps):
        received = np.float64(bound.terms)[:, t + 1 :].sum(1) + np.float64(bound.prior)
        np.testing.assert_allclose(curve.rate[:, i], received, rtol=1e-9)


def test_distortions_in_closed_form(bound: dj.VariationalBound) -> None:
    """The ideal x0_hat of N(0, std^2) data has the posterior's variance as its error."""
    curve = dj.rate_distortion(bound)
    bar = SCHEDULER.noise_schedule.alpha_bar[::-1]
    share = bar * STD**2 / (bar * STD**2 + 1 - bar)
    x2 = np.square(np.float64(X0)).mean((1, 2, 3))[:, None]
    error = (1 - share) ** 2 * x2 + share**2 * (1 - bar) / bar
    # 1,023 pixels: 5 standard errors of a root mean square.
    np.testing.assert_allclose(curve.distortion, np.sqrt(error) * 127.5, rtol=5 / math.sqrt(2046))
    mean = curve.mean()
    assert mean.rate.shape == mean.distortion.shape == (1, STEPS)
    np.testing.assert_allclose(mean.distortion[0] ** 2, (curve.distortion**2).mean(0), rtol=1e-12)


def test_decoded_pictures_are_those_of_the_distortions(
    bound: dj.VariationalBound, count_compilations: Any
) -> None:
    seen = dj.progressive_decoding(epsilon, PARAMS, SCHEDULER, X0, KEYS, [STEPS - 1, 7, 0])
    found = np.square(np.asarray(seen) - X0).mean((2, 3, 4))
    np.testing.assert_allclose(found.T, bound.mse[:, [STEPS - 1, 7, 0]], rtol=1e-4)
    one = dj.progressive_decoding(epsilon, PARAMS, SCHEDULER, X0[1:], KEYS[1:], [5, 7, 3])
    np.testing.assert_allclose(one[1, 0], seen[1, 1], rtol=0, atol=1e-6)
    with count_compilations() as compiled:
        dj.progressive_decoding(epsilon, PARAMS, SCHEDULER, X0, KEYS, [2, 1, 0])
    assert compiled.count <= 1  # the array of timesteps


def test_generated_pictures_are_the_previews_of_the_run() -> None:
    table = dj.PNDMScheduler(trained_betas=np.linspace(1e-3, 0.25, STEPS).tolist(),
                             num_train_timesteps=STEPS).table(8)  # fmt: skip
    x_T = dj.prior(table, KEYS, shape=(5, 7, 1))
    _, previews = dj.sample_with_history(epsilon, PARAMS, table, x_T)
    once = [i for i, t in enumerate(table.timestep) if np.sum(table.timestep == t) == 1]
    chosen = [float(table.timestep[i]) for i in once[::2]]
    seen = dj.progressive_generation(epsilon, PARAMS, table, x_T, None, chosen)
    np.testing.assert_allclose(seen, previews[np.array(once[::2])], rtol=0, atol=1e-6)


@pytest.mark.slow  # fast: test_generated_pictures_are_the_previews_of_the_run
def test_generation_with_noise() -> None:
    table = SCHEDULER.table(STEPS)
    x_T = dj.prior(table, KEYS, shape=(5, 7, 1))
    _, previews = dj.sample_with_history(epsilon, PARAMS, table, x_T, KEYS)
    seen = dj.progressive_generation(epsilon, PARAMS, table, x_T, KEYS, [STEPS - 1, 4, 0])
    np.testing.assert_allclose(seen, previews[np.array([0, STEPS - 5, STEPS - 1])], atol=1e-6)


@pytest.mark.usefixtures("as_users_run")
def test_what_is_refused(bound: dj.VariationalBound) -> None:
    some = dj.variational_bound(epsilon, PARAMS, SCHEDULER, X0, KEYS, num_timesteps=5)
    with pytest.raises(ValueError, match="the terms of all timesteps"):
        dj.rate_distortion(some)
    with pytest.raises(ValueError, match=r"whole numbers in 0\.\.19, got 20, -1, 2\.5"):
        dj.progressive_decoding(epsilon, PARAMS, SCHEDULER, X0, KEYS, [20, 3, -1, 2.5])  # pyright: ignore[reportArgumentType]
    table = SCHEDULER.table(10)
    x_T = dj.prior(table, KEYS, shape=(5, 7, 1))
    call = (epsilon, PARAMS, table, x_T, KEYS)
    with pytest.raises(ValueError, match="one row of 10; got 3 in 0, 1 in 0"):
        dj.progressive_generation(*call, [4, 3, 1])
    with pytest.raises(ValueError, match="strictly descending, got"):
        dj.progressive_generation(*call, [2, 4])


def test_pictures(tmp_path: Path, bound: dj.VariationalBound) -> None:
    seen = dj.progressive_decoding(epsilon, PARAMS, SCHEDULER, X0, KEYS, [15, 5, 0])
    strip = decoding_strip(seen, X0)
    assert strip.size == (2 * 33 * 4 + 10, 2 * 31 * 2 + 6)
    last = np.asarray(strip)[2 : 2 + 62 : 2, 2 + 3 * 68 : 2 + 3 * 68 + 66 : 2]
    assert np.array_equal(last, dj.to_uint8(np.clip(X0[:1] / 2 + 0.5, 0, 1))[0, ..., 0])
    path = tmp_path / "curve.png"
    draw_rate_distortion({"normal data": dj.rate_distortion(bound)}, path)
    with Image.open(path) as picture:
        assert picture.size == (1200, 384)
        assert np.asarray(picture.convert("L")).std() > 10
