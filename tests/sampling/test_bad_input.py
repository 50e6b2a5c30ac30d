"""Wrong arguments of sampling: one clear error before any compilation."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ddpm_jax as dj

pytestmark = pytest.mark.usefixtures("as_users_run")

TABLE = dj.DDIMScheduler().table(5)
NOISY = dj.DDPMScheduler().table(5)
X = np.zeros((2, 4, 4, 1), np.float32)
BYTES = np.full((2, 4, 4, 1), 200, np.uint8)


def denoise(params: Any, x: Any, timestep: Any) -> Any:
    return params * x


def keys(count: int = 2) -> Any:
    return dj.sample_keys(jax.random.key(0), count)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: dj.noised(TABLE, BYTES, keys()), "arrays of floats.*uint8"),
        (lambda: dj.sample(denoise, 1.0, TABLE, BYTES), "arrays of floats.*uint8"),
        (lambda: dj.step(TABLE.row(0), (BYTES,), X), "arrays of floats.*uint8"),
        (lambda: dj.DDPMScheduler().add_noise(BYTES, X, 3), "arrays of floats.*uint8"),
        (lambda: dj.sample(denoise, 1.0, TABLE, [1.0]), "arrays of floats.*list"),
        (lambda: dj.sample(denoise, 1.0, TABLE, X[0]), "samples are .B, H, W, C."),
        (lambda: dj.sample(denoise, 1.0, NOISY, X), "adds noise: it needs keys"),
        (lambda: dj.noised(TABLE, X, keys(3)), "2 images need 2 keys, got 3"),
        (lambda: dj.sample(denoise, 1.0, NOISY, X, keys(3)), "2 images need 2 keys"),
        (lambda: dj.sample(denoise, 1.0, 50, X), "needs a table.*got int"),
        (lambda: dj.sample(denoise, 1.0, dj.stack([TABLE, TABLE]), X), "vmap"),
        (lambda: dj.sample_keys(jax.random.key(0), 4.5), "whole number.*4.5"),
        (lambda: dj.prior(TABLE, keys(), 8), "H, W, C"),
        (lambda: dj.prior(TABLE, keys(), (2, 4, 4, 1)), "H, W, C"),
        (lambda: dj.prior(TABLE, keys(), (4, 0, 1)), "H, W, C"),
        (lambda: dj.sample_with_history(denoise, 1.0, TABLE, X, every=2.0), "every.*2.0"),
        (lambda: dj.sample_with_history(denoise, 1.0, TABLE, X, every=0), "every.*0"),
        (lambda: dj.torch_noise(0.5, (1, 2, 2, 1)), "seed must be a whole number in .*, got 0.5"),
        (lambda: dj.torch_noise(2**64, (1, 1, 2, 1)), "seed must be a whole number in"),
        (lambda: dj.torch_noise(-(2**63) - 1, (1, 1, 2, 1)), "seed must be a whole number in"),
        (lambda: dj.torch_noise(0, (2, 2, 1)), "B, H, W, C.*got"),
        (lambda: dj.torch_noise(0, (1, 0, 2, 1)), "B, H, W, C.*got"),
        (lambda: dj.DDIMScheduler().table(5, dtype=int), "dtype must be float32"),
        (
            lambda: dj.DDIMScheduler().table(5, eta="1"),
            "eta must be a number in .*'1'; a table is made outside of compiled",
        ),
        (lambda: dj.EulerDiscreteScheduler().table(5, s_churn=np.nan), "s_churn=nan"),
        (lambda: dj.EulerDiscreteScheduler().table(5, s_noise=np.nan), "s_noise=nan"),
        (lambda: dj.EulerDiscreteScheduler().table(5, s_churn="1"), "s_churn='1'"),
        (lambda: dj.EulerDiscreteScheduler().table(5, s_churn=np.inf), "inf"),
        (lambda: dj.DDIMScheduler().table(timesteps=["900", "5"]), "timesteps must be numbers"),
        (lambda: dj.DDIMScheduler().table(timesteps=[True, False]), "timesteps must be numbers"),
        (lambda: dj.DDIMScheduler(trained_betas=[[0.1, 0.2]]), "list of numbers"),
        (lambda: dj.DDPMScheduler().add_noise(X, X, jnp.array(-1)), "lie in 0..999"),
        (lambda: dj.DDPMScheduler().add_noise(X, X, jnp.array(5000)), "lie in 0..999"),
        (lambda: dj.DDPMScheduler().add_noise(X, X, -1), "lie in 0..999"),
        (lambda: dj.DDPMScheduler().add_noise(X, X, 1000), "lie in 0..999"),
        (lambda: dj.DDPMScheduler().add_noise(X, X, 2.5), "must be whole numbers"),
        (lambda: dj.DDPMScheduler().add_noise(X, X, np.array([0.5, 1.0])), "must be whole numbers"),
        (lambda: dj.DDPMScheduler().add_noise(X, X, np.arange(3)), "need 1 or 2 coefficients"),
        (lambda: dj.DDPMScheduler().add_noise(X, X[:1], 5), "the two images differ in shape"),
    ],
)
def test_wrong_arguments_are_refused(call: Callable[[], Any], sentence: str):
    with pytest.raises(ValueError, match=sentence):
        call()


@pytest.mark.parametrize("bounds", [(0, 50), (-3, 5), (3, 2), (0.5, 4.5), (1, True)])
def test_advance_checks_its_bounds(bounds: tuple[Any, Any]):
    with pytest.raises(ValueError, match="0 <= start <= stop <= 5"):
        dj.advance(denoise, 1.0, TABLE, TABLE.init(X), None, *bounds)


@pytest.mark.parametrize("timestep", [-1, 1000])
def test_a_traced_timestep_outside_gives_nan(timestep: int):
    noised = jax.jit(dj.DDPMScheduler().add_noise)(X, X, timestep)
    assert np.isnan(noised).all()


def test_numpy_numbers_are_accepted():
    scheduler = dj.DDIMScheduler(num_train_timesteps=np.int64(100), clip_sample_range=np.float64(2))
    assert scheduler == dj.DDIMScheduler(num_train_timesteps=100, clip_sample_range=2.0)
    assert type(scheduler.num_train_timesteps) is int
    assert len(scheduler.table(np.int64(5), start=np.int64(2), eta=np.float32(0.5))) == 3


def test_stack_accepts_any_iterable():
    stacked = dj.stack(dj.DDIMScheduler().table(4, eta=eta) for eta in (0.0, 1.0))
    assert stacked.timestep.shape == (2, 4)
