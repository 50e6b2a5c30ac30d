"""`step` and a hand-written loop, against the tables evaluated in NumPy float64."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ddpm_jax as dj
from tests.sampling.networks import PARAMS, SHAPE, denoise, denoise_learned
from tests.schedulers.propagate import propagate

# A few dozen float32 operations on numbers of the prior's size; float64 has nine digits more.
TOLERANCE = {np.float32: 3e-6, np.float64: 3e-15}

RUNS = {
    "DDPM": dj.DDPMScheduler(),
    "DDPM unclipped": dj.DDPMScheduler(clip_sample=False, variance_type="fixed_large"),
    "DDPM thresholding": dj.DDPMScheduler(thresholding=True, sample_max_value=2.0),
    "DDPM learned": dj.DDPMScheduler(variance_type="learned_range"),
    "DDIM": dj.DDIMScheduler(prediction_type="v_prediction"),
    "PNDM": dj.PNDMScheduler(prediction_type="v_prediction"),
    "PLMS": dj.PNDMScheduler(skip_prk_steps=True, prediction_type="v_prediction"),
    "Euler": dj.EulerDiscreteScheduler(use_karras_sigmas=True, prediction_type="v_prediction"),
    "Euler ancestral": dj.EulerAncestralDiscreteScheduler(prediction_type="v_prediction"),
}


def draws(n: int, batch: int = 2) -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    return [rng.standard_normal((batch, *SHAPE)).astype(np.float32) for _ in range(n + 1)]


@pytest.mark.parametrize("name", RUNS)
def test_the_hand_written_loop_follows_the_table(name: str, strict_x64: bool) -> None:
    dtype = np.float64 if strict_x64 else np.float32
    scheduler = RUNS[name]
    table = scheduler.table(5, dtype=dtype)
    network = denoise_learned if table.log_var is not None else denoise
    x_T, *noise = draws(len(table))
    x_T = x_T.astype(dtype) * np.asarray(table.init_scale, dtype)

    def host_network(x: np.ndarray, i: int) -> np.ndarray:
        sine = float(PARAMS["scale"]) * np.sin(x + PARAMS["shift"] + float(table.timestep[i]) / 500)
        return np.concatenate([sine, np.cos(sine + x)], -1) if network is denoise_learned else sine

    expected = propagate(
        scheduler.table(5, dtype=np.float64), host_network, x_T.astype(float), noise
    )
    registers = table.init(jnp.asarray(x_T))
    for i, row in enumerate(table):
        output = network(PARAMS, row.in_scale * registers[0], jnp.asarray(row.timestep))
        registers = dj.step(row, registers, output, jnp.asarray(noise[i]))
        assert all(r.dtype == dtype for r in registers)
        scale = max(float(table.init_scale), np.abs(expected[i]).max())
        assert np.abs(registers[0] - expected[i]).max() / scale < TOLERANCE[dtype], i


def row_of(**kwargs: Any) -> tuple[dj.Row, tuple[jax.Array, ...], jax.Array]:
    table = dj.DDPMScheduler(**kwargs).table(10)
    x = jnp.asarray(draws(0)[0])
    return table.row(3), table.init(x), 0.1 * x


def test_missing_noise_is_refused() -> None:
    row, registers, output = row_of()
    with pytest.raises(ValueError, match="noise"):
        dj.step(row, registers, output)


def test_noise_is_ignored_if_the_row_adds_none() -> None:
    table = dj.DDIMScheduler().table(10)
    x = jnp.asarray(draws(0)[0])
    with_noise = dj.step(table.row(3), (x,), x, 100 * x)
    without = dj.step(table.row(3), (x,), x)
    np.testing.assert_array_equal(with_noise[0], without[0])


@pytest.mark.parametrize("kind", sorted({"DDPM", "DDIM", "PNDM", "Euler", "Euler ancestral"}))
def test_the_first_half_of_a_double_output_is_the_prediction(kind: str) -> None:
    """A scheduler without a learned variance reads only the first half."""
    table = RUNS[kind].table(5)
    x_T, *noise = draws(len(table))
    for i, row in enumerate(table):
        registers = table.init(jnp.asarray(x_T))
        double = denoise_learned(PARAMS, jnp.asarray(x_T), row.timestep)
        single = double[..., : SHAPE[-1]]
        double_result = dj.step(row, registers, double, noise[i])
        single_result = dj.step(row, registers, single, noise[i])
        np.testing.assert_array_equal(double_result, single_result)


def test_wrong_shapes_are_refused() -> None:
    row, registers, output = row_of()
    noise = jnp.ones_like(output)
    with pytest.raises(ValueError, match="output"):
        dj.step(row, registers, output[..., :1], noise)
    with pytest.raises(ValueError, match="noise"):
        dj.step(row, registers, output, noise[:1])
    with pytest.raises(ValueError, match="register"):
        dj.step(row, (*registers, registers[0]), output, noise)
    row, registers, output = row_of(variance_type="learned_range")
    with pytest.raises(ValueError, match="channels"):
        dj.step(row, registers, output, noise)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_step_works_in_the_dtype_of_the_sample(dtype: Any) -> None:
    """Output and noise are cast to it, for every precision of the network."""
    row, registers, output = row_of()
    noise = jnp.ones_like(output)
    exact = dj.step(row, registers, output, noise)[0]
    other = jnp.bfloat16 if dtype == jnp.float32 else jnp.float32
    half = dj.step(row, (registers[0].astype(dtype),), output.astype(other), noise.astype(other))[0]
    assert half.dtype == dtype
    np.testing.assert_allclose(half.astype(jnp.float32), exact, atol=0.05)


def test_rows_of_a_table() -> None:
    table = dj.DDPMScheduler(variance_type="learned").table(4)
    rows = list(table)
    assert len(rows) == len(table) == 4
    row_at = jax.jit(lambda t, j: t.row(j))
    for i, row in enumerate(rows):
        traced = row_at(table, i)
        for name in ("timestep", "level", "in_scale", "mix", "to_x0", "noise_scale", "log_var"):
            np.testing.assert_array_equal(getattr(row, name), getattr(table, name)[i])
            np.testing.assert_array_equal(getattr(traced, name), getattr(table, name)[i])
        assert row.refine == table.refine
    for i in (-1, 4):
        with pytest.raises(IndexError):
            table.row(i)
