"""Schedulers that evaluate the network at midpoints in log sigma."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import ddpm_jax as dj

KDPM2 = (dj.KDPM2DiscreteScheduler, dj.KDPM2AncestralDiscreteScheduler)


def sigmas_of(scheduler: Any, n: int) -> np.ndarray:
    """The levels of a run of n steps, without the end."""
    return np.array([level.sigma for level in scheduler._run(n, {}).levels[:-1]])


@pytest.mark.parametrize("n", [1, 2, 7])
def test_kdpm2_halves_the_ratio_of_a_step(n: int) -> None:
    """Rows at s, sqrt(s s'), s', ..., and one at the last level."""
    scheduler = dj.KDPM2DiscreteScheduler()
    table, sigmas = scheduler.table(n, dtype=np.float64), sigmas_of(scheduler, n)
    assert len(table) == 2 * n - 1
    np.testing.assert_array_equal(table.level[::2, 1], sigmas)
    halves = table.level[1::2, 1] ** 2
    np.testing.assert_allclose(halves, sigmas[1:] * sigmas[:-1], rtol=1e-14)


def test_the_network_is_told_the_timestep_of_a_midpoint() -> None:
    """Timesteps are linear in log sigma between those of training."""
    scheduler = dj.KDPM2DiscreteScheduler()
    ratio = scheduler.noise_schedule.noise_ratio
    middle = scheduler.table(timesteps=[601, 599], dtype=np.float64).timestep[1]
    share = np.log(ratio[600] / np.sqrt(ratio[599] * ratio[601]))
    share /= np.log(ratio[600] / ratio[599])
    assert middle == pytest.approx(600 - share, abs=1e-4)


@pytest.mark.parametrize("n", [2, 5, 20])
@pytest.mark.parametrize("schedule", ["linear", "squaredcos_cap_v2"])
def test_ancestral_midpoints_are_the_next_level(schedule: str, n: int) -> None:
    """sqrt(s s'^2 / s), also where s is 20,000 times s'."""
    scheduler = dj.KDPM2AncestralDiscreteScheduler(beta_schedule=schedule)
    table, sigmas = scheduler.table(n), sigmas_of(scheduler, n)
    np.testing.assert_allclose(table.level[1::2, 1], sigmas[1:], rtol=1e-6)
    noise = table.noise_scale
    assert np.all(noise[::2] == 0)
    np.testing.assert_allclose(
        noise[1::2] / sigmas[1:], np.sqrt(1 - (sigmas[1:] / sigmas[:-1]) ** 2), rtol=1e-6
    )


@pytest.mark.parametrize("cls", KDPM2)
def test_karras_timesteps_are_whole_but_for_midpoints(cls: Any) -> None:
    told = cls(use_karras_sigmas=True).table(10).timestep
    assert np.all(told[::2] == np.round(told[::2]))
    assert np.any(told[1::2] != np.round(told[1::2]))
    told = cls(use_exponential_sigmas=True).table(10).timestep
    assert np.any(told[::2] != np.round(told[::2]))


def test_a_run_that_ends_above_the_data_has_no_noise_there() -> None:
    table = dj.KDPM2AncestralDiscreteScheduler().table(sigmas=[10.0, 3.0, 1.0], dtype=np.float64)
    assert len(table) == 4
    assert table.noise_scale[-1] == 0
    x0, eps = 0.2, -0.7
    registers = np.array([x0 + table.level[2, 1] * eps, 0.0])
    for mix in table.mix[2:]:
        registers = mix @ np.append(registers, eps)
    assert registers[0] == pytest.approx(x0 + eps, rel=1e-13)


# The stochastic DPM-Solver


def noise_of(table: dj.Table) -> np.ndarray:
    """(rows, rows): the samples after each row as weights of the rows' draws z.

    For a network that always predicts x0 = 0, whose output is x / sigma.
    """
    registers = np.zeros((table.num_registers, len(table)))
    samples = []
    for i, mix in enumerate(table.mix):
        registers = mix @ np.vstack([registers, registers[0] / table.level[i, 1]])
        registers[0, i] += table.noise_scale[i]
        samples.append(registers[0].copy())
    return np.array(samples)


SDE_RUNS = ({}, {"use_karras_sigmas": True}, {"beta_schedule": "squaredcos_cap_v2"})


@pytest.mark.parametrize("s_noise", [1.0, 1.2])
@pytest.mark.parametrize("config", SDE_RUNS, ids=str)
def test_the_noise_of_the_sde_is_one_brownian_motion(
    config: dict[str, Any], s_noise: float
) -> None:
    """Of W over sigma: each part of a step has (W(s) - W(s_p)) / sqrt(s - s_p) times its sigma_up.

    As N(0, 1) draws these have the covariance of increments, the length of what their intervals
    share, over the root of both lengths. The network answers x0 = 0, so that what is left of a
    sample is its noise: a step from s multiplies x by (s_p / s)^2 and adds its own.
    """
    scheduler = dj.DPMSolverSDEScheduler(**config)
    n = 6
    table, sigmas = scheduler.table(n, s_noise=s_noise, dtype=np.float64), sigmas_of(scheduler, n)
    weights = noise_of(table)
    units, intervals = [], []
    begin = np.zeros(len(table))  # the weights of the draws in x where a step begins
    for i, (s, end) in enumerate(pairwise(sigmas)):
        for row, to in ((2 * i, np.sqrt(s * end)), (2 * i + 1, end)):
            up = s_noise * np.sqrt(to**2 - (to**2 / s) ** 2)
            units.append((weights[row] - (to / s) ** 2 * begin) / up)
            intervals.append((to, s))
        begin = weights[2 * i + 1]
    found = np.array(units) @ np.array(units).T
    low, high = np.array(intervals).T
    shared = np.minimum.outer(high, high) - np.maximum.outer(low, low)
    lengths = high - low
    expected = np.maximum(shared, 0) / np.sqrt(np.outer(lengths, lengths))
    np.testing.assert_allclose(found, expected, atol=1e-10)
    assert found[0, 1] == pytest.approx(np.sqrt(lengths[0] / lengths[1]))
    assert 0.5 < found[0, 1] < 0.999  # neither independent nor one draw


def test_the_last_row_of_the_sde_is_the_prediction() -> None:
    table = dj.DPMSolverSDEScheduler().table(4, dtype=np.float64)
    assert len(table) == 7
    np.testing.assert_allclose(table.mix[-1, 0], table.to_x0[-1, [0, 0, 1]] * [1, 0, 1])
    assert table.noise_scale[-1] == 0


def test_sde_without_noise_needs_no_keys() -> None:
    """Only its scale is changed: the network is told the same levels."""
    noisy, quiet = (dj.DPMSolverSDEScheduler().table(5, s_noise=k) for k in (1.0, 0.0))
    assert quiet.noise_scale is None
    np.testing.assert_array_equal(quiet.mix, noisy.mix)
    np.testing.assert_array_equal(quiet.level, noisy.level)
    louder = dj.DPMSolverSDEScheduler().table(5, s_noise=2.0)
    np.testing.assert_allclose(louder.noise_scale, 2 * noisy.noise_scale, rtol=1e-6)


def test_sde_that_ends_above_the_data_has_no_noise_there() -> None:
    table = dj.DPMSolverSDEScheduler().table(sigmas=[10.0, 3.0, 1.0], dtype=np.float64)
    assert np.all(table.noise_scale[2:] == 0)
    x0, eps = 0.2, -0.7
    registers = np.array([x0 + 3.0 * eps, 0.0])
    for mix in table.mix[2:]:
        registers = mix @ np.append(registers, eps)
    assert registers[0] == pytest.approx(x0 + eps, rel=1e-13)
