"""The DPM-Solvers: their grids, the orders of their rows, and levels of flows."""

from math import factorial, inf
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import ddpm_jax as dj
from ddpm_jax.schedulers.exponential import phis

FLOW: dict[str, Any] = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}


def multistep(**config: Any) -> dj.DPMSolverMultistepScheduler:
    return dj.DPMSolverMultistepScheduler(**config)


def singlestep(**config: Any) -> dj.DPMSolverSinglestepScheduler:
    return dj.DPMSolverSinglestepScheduler(**config)


def log_snr(table: dj.Table) -> np.ndarray:
    return np.log(table.level[:, 0] / table.level[:, 1])


@pytest.mark.parametrize("u", [-15.0, -3.0, -1.0, -0.999, -1e-5, 0.0, 1e-9, 0.5, 1.0, 7.0])
def test_phi_is_its_integral(u: float) -> None:
    """Gauss's quadrature, which is exact here but for rounding."""
    nodes, areas = np.polynomial.legendre.leggauss(60)
    s = (nodes + 1) / 2
    integrals = [
        areas / 2 @ (np.exp(u * (1 - s)) * s ** (k - 1) / factorial(k - 1)) for k in (1, 2, 3, 4)
    ]
    np.testing.assert_allclose(phis(u, 4), integrals, rtol=1e-13)


# Orders.


def sources(table: dj.Table) -> list[int]:
    """How many levels each row reads: its own, and those of the registers of the past."""
    return [1 + int(np.count_nonzero(mix[0, 1 : table.num_registers])) for mix in table.mix]


@pytest.mark.parametrize(
    ("config", "steps", "orders"),
    [
        ({}, 5, [1, 2, 2, 2, 1]),
        ({}, 16, [1] + [2] * 14 + [1]),  # the end is at sigma 0
        ({"final_sigmas_type": "sigma_min"}, 5, [1, 2, 2, 2, 1]),
        ({"final_sigmas_type": "sigma_min"}, 16, [1] + [2] * 15),
        ({"final_sigmas_type": "sigma_min", "euler_at_final": True}, 16, [1] + [2] * 14 + [1]),
        ({"solver_order": 3}, 6, [1, 2, 3, 3, 2, 1]),
        ({"solver_order": 3, "lower_order_final": False}, 6, [1, 2, 3, 3, 3, 1]),
        ({"solver_order": 3}, 15, [1, 2] + [3] * 12 + [1]),
        ({"solver_order": 1}, 3, [1, 1, 1]),
        ({"solver_order": 3}, 2, [1, 1]),
    ],
)
def test_orders_of_the_rows(config: dict[str, Any], steps: int, orders: list[int]) -> None:
    """They grow from 1, and fall to it again at the end of runs of under 15 steps."""
    assert sources(multistep(**config).table(steps)) == orders


def test_the_last_steps_of_a_long_run_are_those_of_a_long_run() -> None:
    """`lower_order_final` looks at the whole run, not at what `start` leaves of it."""
    scheduler = multistep(solver_order=3)
    assert sources(scheduler.table(20, start=14)) == [1, 2, 3, 3, 3, 1]
    assert sources(scheduler.table(14, start=8)) == [1, 2, 3, 3, 2, 1]


SIGMA_MIN = {"final_sigmas_type": "sigma_min"}


@pytest.mark.parametrize(
    ("config", "steps", "orders"),
    [
        ({}, 4, [1, 2, 1, 1]),
        ({}, 5, [1, 2, 1, 2, 1]),
        (SIGMA_MIN, 4, [1, 2, 1, 2]),
        (SIGMA_MIN | {"lower_order_final": True}, 4, [1, 2, 1, 1]),
        ({"solver_order": 3}, 6, [1, 2, 3, 1, 2, 1]),
        ({"solver_order": 3}, 5, [1, 2, 3, 1, 1]),
        (SIGMA_MIN | {"solver_order": 3}, 6, [1, 2, 3, 1, 2, 3]),
        (SIGMA_MIN | {"solver_order": 3}, 5, [1, 2, 3, 1, 2]),
        (SIGMA_MIN | {"solver_order": 3}, 4, [1, 2, 3, 1]),
        (SIGMA_MIN | {"solver_order": 3, "lower_order_final": True}, 6, [1, 2, 3, 1, 2, 1]),
        (SIGMA_MIN | {"solver_order": 1}, 3, [1, 1, 1]),
        ({"solver_order": 3}, 1, [1]),
    ],
)
def test_blocks(config: dict[str, Any], steps: int, orders: list[int]) -> None:
    """The order grows within a block. A row reads m at its own level and at those before it."""
    scheduler = singlestep(**config, solver_type="heun")
    assert block_orders(scheduler.table(steps)) == orders
    for start in range(1, steps):  # a block that is cut begins with order 1
        rest = orders[start:]
        first = next((i for i, order in enumerate(rest) if order == 1), len(rest))
        expected = [*range(1, first + 1), *rest[first:]]
        assert block_orders(scheduler.table(steps, start=start)) == expected


def block_orders(table: dj.Table) -> list[int]:
    return [1 + int(np.count_nonzero(mix[0, 2 : table.num_registers])) for mix in table.mix]


def test_a_block_may_have_a_level_twice() -> None:
    """1000 steps of linspace round two points to one timestep: one order less, no division by 0."""
    for order in (2, 3):
        table = singlestep(solver_order=order, solver_type="heun").table(1000, dtype=np.float64)
        assert np.sum(np.diff(table.timestep) == 0) == 1
        assert np.all(np.isfinite(table.mix))


def test_a_run_does_not_change_the_config() -> None:
    """diffusers sets lower_order_final in a run of 5 steps, and keeps it in later ones."""
    scheduler = singlestep(**SIGMA_MIN)
    before = scheduler.table(4).mix
    scheduler.table(5)
    assert not scheduler.lower_order_final
    np.testing.assert_array_equal(scheduler.table(4).mix, before)


def test_the_last_step_is_that_of_the_deterministic_form() -> None:
    options = {"final_sigmas_type": "sigma_min"}
    for form in ("dpmsolver", "dpmsolver++"):
        noisy, plain = (multistep(algorithm_type=k + form, **options) for k in ("sde-", ""))
        rows = [one.table(20, dtype=np.float64) for one in (noisy, plain)]
        np.testing.assert_array_equal(rows[0].mix[-1], rows[1].mix[-1])
        assert np.all(rows[0].noise_scale[:-1] > 0)
        assert rows[0].noise_scale[-1] == 0


def test_a_network_with_a_variance_has_the_same_rows() -> None:
    plain, learned = (multistep(variance_type=kind).table(5) for kind in (None, "learned_range"))
    np.testing.assert_array_equal(plain.mix, learned.mix)
    assert learned.log_var is None


def test_names_of_other_solvers() -> None:
    """As diffusers rewrites them."""
    for kind in ("logrho", "bh1", "bh2"):
        scheduler = multistep(algorithm_type="deis", solver_type=kind)
        assert scheduler == multistep()
        assert scheduler.config.solver_type == "midpoint"


# Grids.


def test_a_timestep_that_repeats_is_a_row_that_does_nothing() -> None:
    """1000 steps of linspace round two points to one timestep."""
    table = multistep(solver_order=3, solver_type="heun").table(1000, dtype=np.float64)
    repeats = np.flatnonzero(np.diff(table.timestep) == 0)
    assert len(repeats) == 1
    np.testing.assert_array_equal(table.mix[repeats[0]], np.eye(3, 4))
    assert np.all(np.isfinite(table.mix))


def test_lu_levels_are_even_in_lambda() -> None:
    table = multistep(use_lu_lambdas=True).table(9, dtype=np.float64)
    steps = np.diff(log_snr(table))
    np.testing.assert_allclose(steps, steps[0], rtol=1e-12)
    assert np.all(table.timestep == np.round(table.timestep))
    ratio = multistep().noise_schedule.noise_ratio
    np.testing.assert_allclose(log_snr(table)[[0, -1]], -np.log(ratio[[-1, 0]]), rtol=1e-12)


@pytest.mark.parametrize("spacing", ["linspace", "leading", "trailing"])
def test_clipped_levels_are_left_out(spacing: str) -> None:
    cosine = {"beta_schedule": "squaredcos_cap_v2", "timestep_spacing": spacing}
    assert log_snr(multistep(**cosine).table(30, dtype=np.float64))[0] < -2.5
    clipped = multistep(**cosine, lambda_min_clipped=-2.5).table(30, dtype=np.float64)
    assert log_snr(clipped)[0] >= -2.5
    everything = multistep(**cosine, lambda_min_clipped=-inf).table(30)
    np.testing.assert_array_equal(everything.level, multistep(**cosine).table(30).level)


def test_clipping_everything_is_refused() -> None:
    with pytest.raises(ValueError, match="over 0 timesteps"):
        multistep(lambda_min_clipped=50.0).table(3)


# Flows.


def test_levels_of_flows() -> None:
    """Even sigmas below 1, shifted by s sigma / (1 + (s - 1) sigma), and straight paths."""
    even = multistep(**FLOW).table(3, dtype=np.float64)
    sigmas = 0.999 * np.array([3, 2, 1]) / 3
    np.testing.assert_allclose(even.level, np.stack([1 - sigmas, sigmas], -1), rtol=1e-13)
    np.testing.assert_allclose(even.timestep, 1000 * sigmas, rtol=1e-6)
    shifted = multistep(**FLOW, flow_shift=3.0).table(3, dtype=np.float64)
    np.testing.assert_allclose(shifted.level[:, 1], 3 * sigmas / (1 + 2 * sigmas), rtol=1e-13)


def test_grids_of_flows() -> None:
    by_timestep = multistep(**FLOW).table(timesteps=[900, 400, 50], dtype=np.float64)
    by_sigma = multistep(**FLOW).table(sigmas=[0.9, 0.4, 0.05, 0.0], dtype=np.float64)
    np.testing.assert_allclose(by_timestep.mix, by_sigma.mix, rtol=1e-12)
    np.testing.assert_array_equal(by_timestep.timestep, [900, 400, 50])
    for grid in ({"timesteps": [900, 0]}, {"sigmas": [1.0, 0.5, 0.0]}, {"sigmas": [1.005, 0.0]}):
        with pytest.raises(ValueError, match="of a flow"):
            multistep(**FLOW).table(**grid)


def test_a_flow_ends_no_higher_than_its_last_level() -> None:
    """sigma_min is that of the betas, 0.01; 200 steps come to 0.005."""
    scheduler = multistep(**FLOW, final_sigmas_type="sigma_min")
    table = scheduler.table(200, dtype=np.float64)
    np.testing.assert_array_equal(table.mix[-1], np.eye(2, 3))
    assert np.all(np.diff(table.level[:, 1]) < 0)


def test_training_a_flow() -> None:
    """x = (1 - t / T) x0 + (t / T) eps, and the target is eps - x0."""
    x0, noise = np.full((1, 1, 1, 1), 0.5, np.float32), np.full((1, 1, 1, 1), -2.0, np.float32)
    scheduler = multistep(**FLOW)
    for timestep in (0, 250, 999):
        share = timestep / 1000
        reached = scheduler.add_noise(x0, noise, timestep)
        np.testing.assert_allclose(reached, 0.5 - 2.5 * share, rtol=1e-6)
        target = scheduler.get_velocity(jnp.asarray(x0), jnp.asarray(noise), timestep)
        np.testing.assert_allclose(target, -2.5, rtol=1e-6)
