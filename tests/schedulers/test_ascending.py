"""Schedulers that walk from images to noise: grids, orders, and the way back."""

from typing import Any

import numpy as np
import pytest

import ddpm_jax as dj
from tests.schedulers.propagate import propagate
from tests.schedulers.test_dpmsolver import sources
from tests.schedulers.test_order import S, fitted_slope, width

UP = (dj.DDIMInverseScheduler, dj.DPMSolverMultistepInverseScheduler)
COLUMNS = ("timestep", "level", "in_scale", "mix", "to_x0")
FLOW: dict[str, Any] = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}


def ddim(**config: Any) -> dj.DDIMInverseScheduler:
    return dj.DDIMInverseScheduler(**{"clip_sample": False, **config})


def dpm(**config: Any) -> dj.DPMSolverMultistepInverseScheduler:
    return dj.DPMSolverMultistepInverseScheduler(**config)


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("end", [True, False])
def test_ddim_of_eps_is_the_inverted_table(spacing: str, end: bool) -> None:
    config = {"clip_sample": False, "timestep_spacing": spacing, "set_alpha_to_one": end}
    for steps in (1, 3, 37):
        down = dj.DDIMScheduler(**config).table(steps, dtype=np.float64)
        up, ours = dj.inverted(down, np.float64), ddim(**config).table(steps, dtype=np.float64)
        for name in COLUMNS:
            np.testing.assert_allclose(
                getattr(ours, name), getattr(up, name), rtol=1e-9, atol=1e-9, err_msg=name
            )


# Grids.


def test_ddim_tells_the_level_above() -> None:
    table, schedule = ddim().table(10, dtype=np.float64), ddim().noise_schedule
    assert table.timestep.tolist() == list(range(0, 1000, 100))
    np.testing.assert_array_equal(table.level[0], [1, 0])
    np.testing.assert_array_equal(table.level[1:, 0], schedule.alpha[0:900:100])


@pytest.mark.parametrize(
    ("spacing", "timesteps"),
    [
        ("linspace", [0, 250, 500, 749]),  # the fifth point, 999, is where the run ends
        ("leading", [0, 200, 400, 600]),
        ("trailing", [249, 499, 749, 999]),
    ],
)
def test_dpm_tells_its_own_level_and_ends_at_the_noisiest(
    spacing: str, timesteps: list[int]
) -> None:
    table = dpm(timestep_spacing=spacing, solver_order=1).table(4, dtype=np.float64)
    assert table.timestep.tolist() == timesteps
    schedule = dpm().noise_schedule
    np.testing.assert_allclose(table.level[:, 0], schedule.alpha[timesteps], rtol=1e-12)
    reached = propagate(table, lambda x, i: 0 * x, np.full((1, 1, 1, 1), table.level[0, 0]))
    assert reached[-1].item() == pytest.approx(schedule.alpha[-1], rel=1e-9)


@pytest.mark.parametrize("cls", UP)
def test_grids_of_ones_own_ascend(cls: Any) -> None:
    scheduler = cls()
    table = scheduler.table(timesteps=[5, 90, 411, 999], dtype=np.float64)
    assert table.timestep.tolist() == [5, 90, 411, 999]
    ratio = scheduler.noise_schedule.noise_ratio
    sigmas = [float(ratio[t]) for t in (5, 90, 411, 999)]
    by_sigma = scheduler.table(sigmas=sigmas, dtype=np.float64)
    np.testing.assert_allclose(by_sigma.level[:, 1] / by_sigma.level[:, 0], sigmas[:-1], rtol=1e-9)
    above = cls is dj.DDIMInverseScheduler
    assert by_sigma.timestep.tolist() == ([90, 411, 999] if above else [5, 90, 411])
    part = scheduler.table(timesteps=[5, 90, 411, 999], start=2, dtype=np.float64)
    np.testing.assert_array_equal(part.timestep, [411, 999])
    np.testing.assert_array_equal(part.level, table.level[2:])
    for grid in ({"timesteps": [999, 5]}, {"sigmas": [3.0, 1.0]}, {"timesteps": [5, 5]}):
        with pytest.raises(ValueError, match=r"strictly ascending, for .* walks from images"):
            scheduler.table(**grid)


@pytest.mark.parametrize("kind", ["karras", "exponential", "beta"])
def test_chosen_levels_ascend_and_stay_at_the_last(kind: str) -> None:
    table = dpm(**{f"use_{kind}_sigmas": True}).table(20, dtype=np.float64)
    other = dj.DPMSolverMultistepScheduler(**{f"use_{kind}_sigmas": True})
    down = other.table(20, dtype=np.float64)
    np.testing.assert_allclose(table.level, down.level[::-1], rtol=1e-12)
    np.testing.assert_array_equal(table.timestep, down.timestep[::-1])
    np.testing.assert_array_equal(table.mix[-1], np.eye(2, 3))


def test_a_flow_begins_at_the_data() -> None:
    """The levels of the run down, of which sigma 0 is told as timestep 0."""
    table = dpm(**FLOW, flow_shift=3.0).table(5, dtype=np.float64)
    down = dj.DPMSolverMultistepScheduler(**FLOW, flow_shift=3.0).table(5, dtype=np.float64)
    np.testing.assert_array_equal(table.level, [[1, 0], *down.level[:0:-1]])
    np.testing.assert_array_equal(table.timestep, [0, *down.timestep[:0:-1]])
    assert np.all(np.isfinite(table.mix))


# Orders.


def up_error(scheduler: Any, steps: int) -> float:
    """Distance from the exact path of Gaussian data at timestep 900, from timestep 300."""
    ratio = scheduler.noise_schedule.noise_ratio
    sigmas = [float(ratio[t]) for t in range(300, 901, 600 // steps)]
    table = scheduler.table(sigmas=sigmas, dtype=np.float64)
    told = ratio[np.round(table.timestep).astype(int)]
    sigma = told / np.hypot(1, told)

    def network(x: np.ndarray, i: int) -> np.ndarray:
        return sigma[i] * x / ((1 - sigma[i] ** 2) * S**2 + sigma[i] ** 2)

    reached = propagate(table, network, np.full((1, 1, 1, 1), width(table.level[0])))[-1].item()
    end = np.array([1.0, sigmas[-1]]) / np.hypot(1, sigmas[-1])
    return abs(reached / width(end) - 1)


@pytest.mark.parametrize(
    ("scheduler", "order"),
    [
        (ddim(), 1),
        (dpm(solver_order=1), 1),
        (dpm(), 2),
        (dpm(algorithm_type="dpmsolver"), 2),
        (dpm(solver_order=3), 2),  # as on the way down
    ],
    ids=["ddim", "1", "2", "eps", "3"],
)
def test_order_of_the_way_up(scheduler: Any, order: int) -> None:
    counts = (30, 60, 150, 300)
    errors = [up_error(scheduler, steps) for steps in counts]
    slope = fitted_slope(errors, tuple(1 / steps for steps in counts))
    assert abs(slope - order) < 0.25, errors
    assert errors[-1] < 0.01


def test_orders_of_the_rows() -> None:
    """They grow from 1, and fall to it again at the end of runs of under 15 steps."""
    assert sources(dpm(solver_order=3).table(6)) == [1, 2, 3, 3, 2, 1]
    assert sources(dpm(solver_order=3).table(16)) == [1, 2, *[3] * 14]
    assert sources(dpm(solver_order=3).table(16, start=12)) == [1, 2, 3, 3]
    assert sources(dpm(**FLOW).table(16)) == [1, 1, *[2] * 14]  # m at the data has no weight


def test_a_run_up_and_a_run_down_meet_closer_with_more_steps() -> None:
    """By more than DDIM's half, of Gaussian data."""

    def network(x: np.ndarray, level: np.ndarray) -> np.ndarray:
        return level[1] * x / width(level) ** 2

    x, errors = np.full((1, 1, 1, 1), 0.7), []
    for steps in (25, 50, 100):
        up = dpm().table(steps, dtype=np.float64)
        down = dj.DPMSolverMultistepScheduler(final_sigmas_type="sigma_min").table(
            steps, dtype=np.float64
        )
        noise = propagate(up, lambda x, i, t=up: network(x, t.level[i]), x)[-1]
        back = propagate(down, lambda x, i, t=down: network(x, t.level[i]), noise)[-1]
        errors.append(abs(back - x).item())
    assert errors[0] > 2 * errors[1] > 4 * errors[2], errors


# What cannot begin at the data.


def test_a_network_of_x0_begins_above_the_data() -> None:
    above = ddim(prediction_type="sample", set_alpha_to_one=False)
    assert np.all(np.isfinite(above.table(10).mix))
    with pytest.raises(ValueError, match="set_alpha_to_one: set that to False"):
        ddim(prediction_type="sample")
    for scheduler in (above, dpm(prediction_type="sample"), dpm(thresholding=True)):
        with pytest.raises(ValueError, match="cannot begin at the data"):
            scheduler.table(sigmas=[0.0, 0.5, 1.0])
    assert len(dpm().table(sigmas=[0.0, 0.5, 1.0])) == 2


def test_the_old_name_of_a_field() -> None:
    """As diffusers reads it."""
    assert not dj.DDIMInverseScheduler.from_config({"set_alpha_to_zero": False}).set_alpha_to_one
