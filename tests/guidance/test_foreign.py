"""Networks of other parameterisations under all kinds of tables: the same exact data."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ddpm_jax as dj

STD, SHAPE = 0.5, (2, 2, 1)


def denoiser(params: Any, x: Any, sigma: Any) -> Any:
    return params * x * STD**2 / (STD**2 + sigma**2)


def inner(params: Any, x: Any, told: Any) -> Any:
    """The network F whose preconditioned x0 is the denoiser's."""
    sigma = jnp.exp(4 * told)
    h = jnp.hypot(sigma, STD)
    noisy = x * h
    return (denoiser(params, noisy, sigma) - (STD / h) ** 2 * noisy) / (sigma * STD / h)


def velocity(params: Any, x: Any, u: Any) -> Any:
    """eps - x0 at x = (1 - u) x0 + u eps."""
    x0 = denoiser(params, x / (1 - u), u / (1 - u))
    return (x - x0) / u


def mirrored(params: Any, x: Any, time: Any) -> Any:
    return -velocity(params, x, 1 - time)


NETWORKS = {
    "denoiser": dj.from_denoiser(denoiser),
    "preconditioned": dj.from_preconditioned(inner, STD),
    "velocity": dj.from_velocity(velocity),
    "mirrored": dj.from_velocity(mirrored, data_at_one=True),
}
TABLES = {
    "ddim": dj.DDIMScheduler(clip_sample=False, timestep_spacing="trailing").table(150),
    "v": dj.DDIMScheduler(
        clip_sample=False, timestep_spacing="trailing", prediction_type="v_prediction"
    ).table(150),
    "euler": dj.EulerDiscreteScheduler(timestep_spacing="trailing").table(150),
    "dpm": dj.DPMSolverMultistepScheduler(timestep_spacing="trailing").table(40),
    "edm": dj.EDMEulerScheduler().table(150),
    "flow": dj.FlowMatchEulerDiscreteScheduler().table(sigmas=np.linspace(0.999, 0, 151)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_any_table_runs_any_network(name: str) -> None:
    keys = dj.sample_keys(jax.random.key(0), 4)
    for kind, table in TABLES.items():
        x_T = dj.prior(table, keys, SHAPE)
        images = dj.sample(NETWORKS[name], jnp.float32(1.0), table, x_T)
        alpha, sigma = table.level[0]
        # The exact flow of such data scales x by its standard deviations.
        expected = x_T * STD / np.hypot(alpha * STD, sigma)
        np.testing.assert_allclose(images, expected, atol=0.03, err_msg=kind)


@partial(jax.jit, static_argnums=0)
def at_row(network: Any, params: Any, row: Any, x: Any) -> jax.Array:
    return network.at_row(params, row, x)


def test_all_networks_answer_alike() -> None:
    x = jax.random.normal(jax.random.key(1), (3, *SHAPE))
    for table in TABLES.values():
        row = table.row(len(table) // 2)
        first, *others = (at_row(one, jnp.float32(0.9), row, x) for one in NETWORKS.values())
        for other in others:
            np.testing.assert_allclose(other, first, rtol=2e-4, atol=2e-5)


def test_equal_networks_share_a_program(count_compilations: Any) -> None:
    table = TABLES["ddim"]
    x_T = jnp.zeros((1, *SHAPE))
    dj.sample(dj.from_denoiser(denoiser), jnp.float32(1.0), table, x_T)
    with count_compilations() as compiled:
        dj.sample(dj.from_denoiser(denoiser), jnp.float32(0.5), table, x_T)
    assert compiled.count == 0


def test_guides_go_around_them() -> None:
    y = np.full((1, 1, 1, 1), 0.4, np.float32)
    denoise, params = dj.diffpir(dj.Downsampled(2), y).around(
        dj.from_denoiser(denoiser), jnp.float32(1.0)
    )
    table = TABLES["ddim"]
    keys = dj.sample_keys(jax.random.key(0), 2)
    images = dj.sample(denoise, params, table, dj.prior(table, keys, SHAPE))
    np.testing.assert_allclose(images.mean(axis=(1, 2, 3)), 0.4, atol=1e-5)


@pytest.mark.usefixtures("as_users_run")
def test_wrong_use_is_refused() -> None:
    with pytest.raises(ValueError, match="sigma_data"):
        dj.from_preconditioned(inner, 0.0)
    with pytest.raises(TypeError, match=r"ddpm_jax\.sample"):
        dj.from_denoiser(denoiser)(None, jnp.zeros((1, *SHAPE)), 3.0)
