"""The forward process on the device: add_noise, velocity, and conversions of eps, x0 and v."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ddpm_jax as dj
from ddpm_jax.sampling import forward
from tests.schedulers import reference

SHAPE = (4, 3, 2, 1)
TIMESTEP = np.array([0, 1, 500, 999])
BAR = reference.alpha_bar(reference.betas("linear"))

# One product and one sum.
TOLERANCE = {np.float32: 1e-6, np.float64: 1e-14}


def images(dtype: Any) -> tuple[jax.Array, jax.Array]:
    rng = np.random.default_rng(0)
    return tuple(jnp.asarray(rng.standard_normal(SHAPE), dtype) for _ in range(2))


def per_image(values: np.ndarray) -> np.ndarray:
    return values.reshape(-1, 1, 1, 1)


def test_add_noise_and_velocity_by_training_timestep(strict_x64: bool) -> None:
    dtype = np.float64 if strict_x64 else np.float32
    x0, eps = images(dtype)
    alpha, sigma = per_image(np.sqrt(BAR[TIMESTEP])), per_image(np.sqrt(1 - BAR[TIMESTEP]))
    clean, drawn = np.asarray(x0, np.float64), np.asarray(eps, np.float64)
    for cls in (dj.DDPMScheduler, dj.DDIMScheduler, dj.PNDMScheduler):
        noisy = cls().add_noise(x0, eps, TIMESTEP)
        v = cls().get_velocity(x0, eps, TIMESTEP)
        assert noisy.dtype == v.dtype == dtype
        np.testing.assert_allclose(noisy, alpha * clean + sigma * drawn, atol=TOLERANCE[dtype])
        np.testing.assert_allclose(v, alpha * drawn - sigma * clean, atol=TOLERANCE[dtype])
    for cls in (dj.EulerDiscreteScheduler, dj.EulerAncestralDiscreteScheduler):
        noisy = cls().add_noise(x0, eps, TIMESTEP)
        expected = clean + sigma / alpha * drawn
        np.testing.assert_allclose(noisy, expected, rtol=1e-6, atol=TOLERANCE[dtype])


def test_one_timestep_for_all_and_one_for_each() -> None:
    x0, eps = images(np.float32)
    scheduler = dj.DDPMScheduler()
    together = scheduler.add_noise(x0, eps, 500)
    np.testing.assert_array_equal(together, scheduler.add_noise(x0, eps, np.full(4, 500)))
    traced = jax.jit(scheduler.add_noise)(x0, eps, jnp.full(4, 500))
    np.testing.assert_allclose(traced, together, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision_adds_noise_at_timestep_zero(dtype: Any) -> None:
    """Computed in float32: in half precision 1 - alpha_bar_0 = 1e-4 would be 0."""
    x0, eps = jnp.zeros(SHAPE, dtype), jnp.ones(SHAPE, dtype)
    noisy = dj.DDPMScheduler().add_noise(x0, eps, 0)
    assert noisy.dtype == dtype
    np.testing.assert_allclose(noisy.astype(jnp.float32), 0.01, rtol=0.01)


@pytest.mark.parametrize("shape", [(), (4,)])
def test_readings_are_inverse_to_each_other(shape: tuple[int, ...], strict_x64: bool) -> None:
    dtype = np.float64 if strict_x64 else np.float32
    x0, eps = images(dtype)
    angle = np.linspace(0.4, 1.2, 4).reshape(4)[: shape[0] if shape else 1].reshape(shape)
    alpha, sigma = jnp.asarray(np.cos(angle), dtype), jnp.asarray(np.sin(angle), dtype)
    x = forward.add_noise(x0, eps, alpha, sigma)
    v = forward.velocity(x0, eps, alpha, sigma)
    tolerance = {"atol": 5 * TOLERANCE[dtype]}
    np.testing.assert_allclose(forward.x0_from_eps(x, eps, alpha, sigma), x0, **tolerance)
    np.testing.assert_allclose(forward.eps_from_x0(x, x0, alpha, sigma), eps, **tolerance)
    np.testing.assert_allclose(forward.x0_from_v(x, v, alpha, sigma), x0, **tolerance)
    np.testing.assert_allclose(forward.eps_from_v(x, v, alpha, sigma), eps, **tolerance)
