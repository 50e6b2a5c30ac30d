"""DDPM's variances by hand, over the three betas 0.1, 0.2, 0.5: alpha_bar = 0.9, 0.72, 0.36.

Ho et al. 2020 (arXiv 2006.11239), equations 6 and 7; Nichol and Dhariwal 2021 (arXiv 2102.09672),
equation 15.
"""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import ddpm_jax as dj

BETAS = (0.1, 0.2, 0.5)


def table_of(variance_type: str, **call: Any) -> dj.Table:
    scheduler = dj.DDPMScheduler(
        num_train_timesteps=3, trained_betas=BETAS, clip_sample=False, variance_type=variance_type
    )
    return scheduler.table(**(call or {"num_inference_steps": 3}), dtype=np.float64)


# From timestep 2 to 1: (1 - 0.72) / (1 - 0.36) 0.5; from 1 to 0: (1 - 0.9) / (1 - 0.72) 0.2.
POSTERIOR = (0.28 / 0.64 * 0.5, 0.1 / 0.28 * 0.2)


@pytest.mark.parametrize("suffix", ["", "_log"])
def test_fixed(suffix: str) -> None:
    small, large = table_of(f"fixed_small{suffix}"), table_of(f"fixed_large{suffix}")
    np.testing.assert_allclose(small.noise_scale**2, [*POSTERIOR, 0], rtol=1e-14)
    np.testing.assert_allclose(large.noise_scale**2, [0.5, 0.2, 0], rtol=1e-14)
    assert small.log_var is None
    assert large.log_var is None


def test_skipped_timesteps_take_the_betas_between_them() -> None:
    """From timestep 2 straight to 0: beta = 1 - 0.36 / 0.9 = 0.6."""
    small = table_of("fixed_small", timesteps=[2, 0])
    large = table_of("fixed_large", timesteps=[2, 0])
    np.testing.assert_allclose(large.noise_scale**2, [0.6, 0], rtol=1e-14)
    np.testing.assert_allclose(small.noise_scale**2, [0.1 / 0.64 * 0.6, 0], rtol=1e-14)


def test_posterior_mean() -> None:
    """Equation 7 from timestep 2 to 1, the network predicting eps: x0 = (x - 0.8 eps) / 0.6."""
    x0_coef = math.sqrt(0.72) * 0.5 / 0.64
    x_coef = math.sqrt(0.5) * 0.28 / 0.64
    mix = table_of("fixed_small").mix[0, 0]
    np.testing.assert_allclose(mix, [x_coef + x0_coef / 0.6, -x0_coef * 0.8 / 0.6], rtol=1e-14)


def test_learned_range_bounds() -> None:
    table = table_of("learned_range")
    expected = [[math.log(p), math.log(b)] for p, b in zip(POSTERIOR, (0.5, 0.2), strict=True)]
    np.testing.assert_allclose(table.log_var[:2], expected, rtol=1e-13)
    np.testing.assert_array_equal(table.noise_scale, [1, 1, 0])
    assert np.all(np.isfinite(table.log_var))


def test_learned_bounds() -> None:
    table = table_of("learned")
    np.testing.assert_array_equal(table.log_var, [[-1, 1]] * 3)
    np.testing.assert_array_equal(table.noise_scale, [1, 1, 0])


def noise_added(variance_type: str, row: int, second: float) -> np.ndarray:
    """The standard deviation by which `step` multiplies unit noise."""
    scheduler = dj.DDPMScheduler(
        num_train_timesteps=3, trained_betas=BETAS, variance_type=variance_type
    )
    x = jnp.full((1, 2, 2, 1), 0.3)
    output = jnp.concatenate([0.1 * x, jnp.full_like(x, second)], axis=-1)
    loud, quiet = (
        dj.step(scheduler.table(3).row(row), (x,), output, level * jnp.ones_like(x))[0]
        for level in (1.0, 0.0)
    )
    return np.asarray(loud - quiet)


@pytest.mark.parametrize("share", [-1.0, -0.25, 0.0, 1.0])
def test_learned_range_in_a_step(share: float) -> None:
    """log variance = f log beta + (1 - f) log posterior, f = (v + 1) / 2: at -1 the posterior."""
    f = (share + 1) / 2
    for row, beta in ((0, 0.5), (1, 0.2)):
        std = beta ** (f / 2) * POSTERIOR[row] ** ((1 - f) / 2)
        np.testing.assert_allclose(noise_added("learned_range", row, share), std, rtol=1e-5)
    np.testing.assert_array_equal(noise_added("learned_range", 2, share), 0)


@pytest.mark.parametrize("log_var", [-6.0, -2.0, 0.0, 1.5])
def test_learned_in_a_step(log_var: float) -> None:
    """The second half is the log variance itself, also outside [-1, 1]."""
    for row in (0, 1):
        std = math.exp(log_var / 2)
        np.testing.assert_allclose(noise_added("learned", row, log_var), std, rtol=1e-5)
    np.testing.assert_array_equal(noise_added("learned", 2, log_var), 0)


def test_learned_range_on_one_thousand_timesteps_includes_the_fixed_variances() -> None:
    """fixed_small at v = -1 and fixed_large at v = 1, in all rows except the last without noise."""
    tables = {
        kind: dj.DDPMScheduler(variance_type=kind).table(1000, dtype=np.float64)
        for kind in ("fixed_small", "fixed_large", "learned_range")
    }
    bounds = np.exp(tables["learned_range"].log_var[:-1] / 2)
    np.testing.assert_allclose(bounds[:, 0], tables["fixed_small"].noise_scale[:-1], rtol=1e-12)
    np.testing.assert_allclose(bounds[:, 1], tables["fixed_large"].noise_scale[:-1], rtol=1e-12)


def test_eta_one_is_ddpm() -> None:
    """DDIM at eta 1 and DDPM with fixed_small are one sampler, unclipped (arXiv 2010.02502)."""
    for prediction in ("epsilon", "sample", "v_prediction"):
        config = {"clip_sample": False, "prediction_type": prediction}
        ddim = dj.DDIMScheduler(**config).table(50, eta=1.0, dtype=np.float64)
        ddpm = dj.DDPMScheduler(**config).table(50, dtype=np.float64)
        np.testing.assert_allclose(ddim.noise_scale, ddpm.noise_scale, rtol=1e-11)
        np.testing.assert_allclose(ddim.mix, ddpm.mix, rtol=1e-9, atol=1e-11)


def test_euler_is_unclipped_ddim() -> None:
    """In x / alpha, DDIM's step is Euler's (arXiv 2010.02502, equation 13)."""
    ddim = dj.DDIMScheduler(clip_sample=False).table(10, dtype=np.float64)
    euler = dj.EulerDiscreteScheduler(timestep_spacing="leading").table(10, dtype=np.float64)
    alpha = np.append(ddim.level[:, 0], 1.0)
    np.testing.assert_array_equal(ddim.timestep, euler.timestep)
    np.testing.assert_allclose(ddim.mix[:, 0, 0] * alpha[:-1] / alpha[1:], euler.mix[:, 0, 0])
    np.testing.assert_allclose(ddim.mix[:, 0, 1] / alpha[1:], euler.mix[:, 0, 1], rtol=1e-11)
