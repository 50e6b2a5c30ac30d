"""Gradients through samplers: finite, and equal to finite differences."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ddpm_jax as dj
from tests.sampling.networks import PARAMS, SHAPE, denoise, denoise_learned

KEYS = dj.sample_keys(jax.random.key(4, impl="unsafe_rbg"), 1)  # compiles fastest

RUNS = {
    "DDPM learned": dj.DDPMScheduler(variance_type="learned_range"),
    "DDPM zero SNR": dj.DDPMScheduler(
        rescale_betas_zero_snr=True, prediction_type="v_prediction", timestep_spacing="trailing"
    ),
    "DDIM thresholding": dj.DDIMScheduler(thresholding=True, sample_max_value=2.0),
    "PNDM": dj.PNDMScheduler(),
}


def loss(params: Any, table: dj.Table, x_T: jax.Array) -> jax.Array:
    network = denoise if table.log_var is None else denoise_learned
    return jnp.mean(dj.sample(network, params, table, x_T, KEYS) ** 2)


gradients_of = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))


@pytest.mark.parametrize("name", RUNS)
def test_gradients_are_finite(name: str) -> None:
    """With respect to the weights, the table's numbers, and the start."""
    table = RUNS[name].table(5)
    x_T = dj.prior(table, KEYS, SHAPE)
    gradients = jax.device_get(gradients_of(PARAMS, table, x_T))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
    assert np.abs(gradients[0]["scale"]) > 0
    assert np.abs(gradients[1].mix).max() > 0


def test_gradient_of_a_coefficient_is_its_finite_difference() -> None:
    table = dj.DDIMScheduler(prediction_type="v_prediction", clip_sample=False).table(5)
    x_T = dj.prior(table, KEYS, SHAPE)
    gradient = gradients_of(PARAMS, table, x_T)[1].mix[2, 0, 1]

    def at(change: float) -> float:
        mix = table.mix.copy()
        mix[2, 0, 1] += change
        return float(loss(PARAMS, dataclasses.replace(table, mix=mix), x_T))

    h = 1e-2  # float32 values: the difference keeps five digits, its error is of order h^2
    assert float(gradient) == pytest.approx((at(h) - at(-h)) / (2 * h), rel=5e-3)


def test_gradient_of_the_weights_is_its_finite_difference() -> None:
    table = dj.PNDMScheduler(prediction_type="v_prediction").table(5)
    x_T = dj.prior(table, KEYS, SHAPE)
    gradient = gradients_of(PARAMS, table, x_T)[0]["scale"]

    def at(change: float) -> float:
        return float(loss(PARAMS | {"scale": np.float32(0.7 + change)}, table, x_T))

    h = 1e-2
    assert float(gradient) == pytest.approx((at(h) - at(-h)) / (2 * h), rel=2e-2)
