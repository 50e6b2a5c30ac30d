"""Schedulers that evaluate the network at midpoints in log sigma."""

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
