"""The Adams methods in lambda: their orders, corrections and grids."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ddpm_jax as dj
from tests.schedulers.propagate import propagate

LOW: dict[str, Any] = {"final_sigmas_type": "sigma_min"}
FLOW: dict[str, Any] = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}


def unipc(**config: Any) -> dj.UniPCMultistepScheduler:
    return dj.UniPCMultistepScheduler(**config)


def sources(table: dj.Table) -> list[int]:
    """How many registers of the past each row reads."""
    return [int(np.count_nonzero(np.abs(mix[0, 1:-1]) > 1e-14)) for mix in table.mix]


# A row reads what its correction needs, the value that the corrected step came from and what that
# one read, and what its own prediction needs. A step to sigma 0 forgets x, and its correction.
@pytest.mark.parametrize(
    ("config", "steps", "reads"),
    [
        ({}, 5, [0, 1, 2, 2, 0]),
        ({"solver_order": 3}, 6, [0, 1, 2, 3, 3, 0]),
        ({"solver_order": 3} | LOW, 4, [0, 1, 2, 2]),
        ({"disable_corrector": range(5)}, 5, [0, 1, 1, 1, 0]),
        ({"disable_corrector": [1]}, 5, [0, 1, 1, 2, 0]),
        ({"solver_order": 3, "disable_corrector": range(6)}, 6, [0, 1, 2, 2, 1, 0]),
        (
            {"solver_order": 3, "disable_corrector": range(6), "lower_order_final": False} | LOW,
            6,
            [0, 1, 2, 2, 2, 2],
        ),
        ({"solver_order": 1} | LOW, 3, [0, 1, 1]),
    ],
)
def test_what_unipc_reads(config: dict[str, Any], steps: int, reads: list[int]) -> None:
    config = config | {"disable_corrector": list(config.get("disable_corrector", []))}
    assert sources(unipc(**config).table(steps, dtype=np.float64)) == reads


def test_steps_are_counted_from_the_beginning_of_the_run() -> None:
    """`disable_corrector` and the last orders, whatever `start` leaves of it."""
    scheduler = unipc(disable_corrector=[3], **LOW)
    assert sources(scheduler.table(7, dtype=np.float64)) == [0, 1, 2, 2, 1, 2, 2]
    assert sources(scheduler.table(7, start=3, dtype=np.float64)) == [0, 1, 2, 2]
    assert sources(scheduler.table(7, start=2, dtype=np.float64)) == [0, 1, 1, 2, 2]


def test_a_corrector_costs_no_evaluation() -> None:
    """And one value of m more than the predictor, but no register for the sample before."""
    for order in (1, 2, 3):
        table = unipc(solver_order=order).table(9)
        assert (len(table), table.num_registers) == (9, order + 1)
    table = dj.SASolverScheduler(predictor_order=3, corrector_order=3).table(9)
    assert (len(table), table.num_registers) == (9, 4)


def test_the_corrector_is_the_trapezoid_in_lambda() -> None:
    """UniC-1 with bh1, by hand: with u = -h, the next row starts from

    (sigma' / sigma) x_last - alpha' (e^u - 1) m_0 - alpha' u (m_1 - m_0) / 2
    """
    scheduler = unipc(solver_order=1, solver_type="bh1", prediction_type="sample", **LOW)
    table = scheduler.table(timesteps=[800, 500, 200], dtype=np.float64)
    m = [0.3, -0.8, 0.5]
    path = propagate(table, lambda x, i: np.full_like(x, m[i]), np.ones((1, 1, 1, 1)))
    (a0, s0), (a1, s1), (a2, s2) = table.level
    u = np.log(a0 / s0) - np.log(a1 / s1)
    predicted = s1 / s0 - a1 * np.expm1(u) * m[0]
    assert path[0].item() == pytest.approx(predicted, rel=1e-12)
    corrected = predicted - a1 * u * (m[1] - m[0]) / 2
    u = np.log(a1 / s1) - np.log(a2 / s2)
    expected = s2 / s1 * corrected - a2 * np.expm1(u) * m[1]
    assert path[1].item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    "config",
    [
        {"solver_type": "bh1"},
        {"predict_x0": False},
        {"lower_order_final": False, "solver_order": 3},
    ],
    ids=str,
)
def test_the_step_to_the_data_is_of_first_order(config: dict[str, Any]) -> None:
    """It ends at x0, and in eps at that of the corrected sample; in diffusers none is finite."""
    table = unipc(**config, prediction_type="sample").table(6, dtype=np.float64)
    assert np.all(np.isfinite(table.mix))
    if unipc(**config).predict_x0:
        np.testing.assert_array_equal(table.mix[-1, 0], np.eye(len(table.mix[-1]) + 1)[-1])
    else:
        assert sources(table)[-1] == 2


def test_names_of_other_solvers() -> None:
    """As diffusers rewrites them."""
    for kind in ("midpoint", "heun", "logrho"):
        assert unipc(solver_type=kind).config.solver_type == "bh2"


def test_a_repeated_level_is_corrected_and_not_left() -> None:
    """A long run of chosen levels stays at its last one: what is left is the correction."""
    table = unipc(use_karras_sigmas=True, **LOW).table(8, dtype=np.float64)
    assert sources(table)[-1] == 2
    plain = unipc(use_karras_sigmas=True, disable_corrector=tuple(range(8)), **LOW).table(8)
    np.testing.assert_array_equal(plain.mix[-1], np.eye(*plain.mix[-1].shape))


@pytest.mark.parametrize(
    "scheduler",
    [
        unipc(solver_order=3),
        dj.DEISMultistepScheduler(solver_order=3),
        dj.SASolverScheduler(predictor_order=3, tau_func=lambda timestep: 0.0),
    ],
    ids=lambda one: type(one).__name__,
)
def test_a_timestep_that_repeats(scheduler: dj.Scheduler) -> None:
    """1000 steps of linspace round two points to one timestep: x stays there but for a correction.

    In diffusers the run is NaN from there on.
    """
    table = scheduler.table(1000, dtype=np.float64)
    repeat = int(np.flatnonzero(np.diff(table.timestep) == 0).item())
    x0, eps, start = 0.3, -1.2, np.ones((1, 1, 1, 1))
    alpha, sigma = table.level[0]
    path = propagate(table, lambda x, i: np.full_like(x, eps), (alpha * x0 + sigma * eps) * start)
    alpha, sigma = table.level[repeat + 1]
    assert path[repeat].item() == pytest.approx(alpha * x0 + sigma * eps, rel=1e-10)
    assert np.isfinite(path[-1]).all()


# Flows.


def test_a_flow_begins_just_below_noise() -> None:
    """Even steps from sigma 1, where lambda is infinite; shifted, then stretched."""
    table = unipc(**FLOW).table(4, dtype=np.float64)
    even = np.array([1 - 1e-6, *np.linspace(1, 0.001, 5)[1:-1]])
    np.testing.assert_allclose(table.level[:, 1], even, rtol=1e-12)
    np.testing.assert_allclose(table.timestep, 1000 * even, rtol=1e-6)
    stretched = unipc(**FLOW, shift_terminal=0.2).table(4, dtype=np.float64).level[1:, 1]
    np.testing.assert_allclose((1 - stretched) / (1 - even[1:]), 0.8 / (1 - even[-1]), rtol=1e-12)
    one = unipc(**FLOW, shift_terminal=0.2).table(1, dtype=np.float64)
    np.testing.assert_array_equal(one.level, unipc(**FLOW).table(1, dtype=np.float64).level)


def test_a_flow_on_karras_levels() -> None:
    """As Cosmos has it: s / (1 + s) of levels s from sigma_max to sigma_min."""
    config = FLOW | {"use_karras_sigmas": True, "sigma_max": 200.0, "sigma_min": 0.01}
    sigma = unipc(**config).table(7, dtype=np.float64).level[:, 1]
    ratios = sigma / (1 - sigma)
    np.testing.assert_allclose(ratios[[0, -1]], [200.0, 0.01], rtol=1e-12)
    roots = np.diff(ratios ** (1 / 7))
    np.testing.assert_allclose(roots, roots[0], rtol=1e-10)


# DEIS.


@pytest.mark.parametrize("order", [1, 2, 3])
def test_deis_integrates_polynomials_in_log_rho(order: int) -> None:
    """With eps = (log rho)^d, a step of k values is exact for d < k, and not for d = k."""
    scheduler = dj.DEISMultistepScheduler(solver_order=order, lower_order_final=False)
    table = scheduler.table(12, dtype=np.float64)
    alpha, sigma = table.level.T
    logs = np.log(sigma / alpha)
    nodes, areas = np.polynomial.legendre.leggauss(30)
    for degree in range(order + 1):
        path = propagate(
            table, lambda x, i, d=degree: np.full_like(x, logs[i] ** d), np.zeros((1, 1, 1, 1))
        )
        steps = np.diff(np.ravel(path[:-1]) / alpha[1:], prepend=0.0)
        for i in range(order - 1, len(steps)):  # rows before have fewer values
            half = (sigma[i + 1] / alpha[i + 1] - sigma[i] / alpha[i]) / 2
            points = sigma[i] / alpha[i] + half * (nodes + 1)
            exact = half * areas @ np.log(points) ** degree
            wrong = abs(steps[i] - exact) / abs(half)
            assert wrong < 1e-11 if degree < order else wrong > 1e-3, (degree, i, wrong)


@pytest.mark.parametrize(
    ("config", "steps", "reads"),
    [
        ({}, 5, [0, 1, 1, 1, 0]),
        ({}, 15, [0] + [1] * 14),
        ({"solver_order": 3}, 6, [0, 1, 2, 2, 1, 0]),
        ({"solver_order": 3, "lower_order_final": False}, 6, [0, 1, 2, 2, 2, 2]),
        ({"solver_order": 1}, 3, [0, 0, 0]),
        ({"use_karras_sigmas": True}, 5, [0, 1, 1, 1, 0]),
    ],
)
def test_what_deis_reads(config: dict[str, Any], steps: int, reads: list[int]) -> None:
    """The orders grow from 1, and fall to it again at the end of runs of under 15 steps."""
    table = dj.DEISMultistepScheduler(**config).table(steps, dtype=np.float64)
    assert sources(table) == reads


def test_deis_stays_at_the_last_of_chosen_levels() -> None:
    """As diffusers; a run of timesteps goes on to the first level of training."""
    for chosen in ({"use_karras_sigmas": True}, {"use_exponential_sigmas": True}, FLOW):
        mix = dj.DEISMultistepScheduler(**chosen).table(5, dtype=np.float64).mix[-1, 0]
        np.testing.assert_allclose(mix, [1, 0, 0], atol=1e-14)
    assert abs(dj.DEISMultistepScheduler().table(5).mix[-1, 0, -1]) > 0.1


def test_names_of_other_solvers_are_those_of_deis() -> None:
    for form in ("dpmsolver", "dpmsolver++"):
        for kind in ("midpoint", "heun", "bh1", "bh2"):
            scheduler = dj.DEISMultistepScheduler(algorithm_type=form, solver_type=kind)
            assert scheduler == dj.DEISMultistepScheduler()


# SA-Solver.


def sasolver(**config: Any) -> dj.SASolverScheduler:
    return dj.SASolverScheduler(**config)


def test_the_default_tau_is_one_between_timesteps_200_and_800() -> None:
    grid = [900, 801, 800, 500, 200, 199, 10]
    noise = sasolver().table(timesteps=grid, dtype=np.float64).noise_scale
    assert (noise > 0).tolist() == [False, False, True, True, True, False, False]


def test_the_last_step_of_any_tau_adds_no_noise() -> None:
    noise = sasolver(tau_func=lambda timestep: 1.0).table(6).noise_scale
    assert (noise > 0).tolist() == [True] * 5 + [False]


@pytest.mark.parametrize(
    ("ours", "theirs", "order"),
    [
        ("data_prediction", "sde-dpmsolver++", 1),
        ("noise_prediction", "sde-dpmsolver", 1),
        ("noise_prediction", "sde-dpmsolver", 2),
    ],
)
def test_at_tau_one_the_predictor_is_that_of_dpmsolver(ours: str, theirs: str, order: int) -> None:
    """Which has no corrector: so of the first two rows, and of noise in all."""
    dpm = dj.DPMSolverMultistepScheduler(
        algorithm_type=theirs, solver_order=order, solver_type="heun", **LOW
    ).table(20, dtype=np.float64)
    sa = sasolver(
        algorithm_type=ours,
        predictor_order=order,
        corrector_order=1,
        tau_func=lambda timestep: 1.0,
    ).table(20, dtype=np.float64)
    np.testing.assert_allclose(sa.mix[0, 0, [0, -1]], dpm.mix[0, 0, [0, -1]], rtol=1e-12)
    np.testing.assert_allclose(sa.noise_scale, dpm.noise_scale, rtol=1e-12)


@pytest.mark.parametrize(
    ("config", "steps", "reads"),
    [
        ({}, 5, [0, 1, 2, 2, 2]),
        ({"predictor_order": 3}, 6, [0, 1, 2, 3, 3, 2]),
        ({"predictor_order": 1, "corrector_order": 4}, 6, [0, 1, 2, 3, 3, 2]),
        (
            {"predictor_order": 1, "corrector_order": 4, "lower_order_final": False},
            6,
            [0, 1, 2, 3, 3, 3],
        ),
    ],
)
def test_what_sasolver_reads(config: dict[str, Any], steps: int, reads: list[int]) -> None:
    config |= {"algorithm_type": "noise_prediction", "tau_func": lambda timestep: 0.3}
    assert sources(sasolver(**config).table(steps, dtype=np.float64)) == reads


def test_tau_is_a_function_of_fractional_timesteps() -> None:
    told: list[float] = []
    sasolver(use_exponential_sigmas=True, tau_func=lambda t: told.append(t) or 0.5).table(5)
    assert any(timestep != round(timestep) for timestep in told)


def test_a_function_is_not_written_to_a_file(tmp_path: Path) -> None:
    """Nor does it get lost in silence: another scheduler's config keeps it, hidden."""
    scheduler = sasolver(tau_func=lambda timestep: 0.5, predictor_order=3)
    other = dj.DDIMScheduler.from_config(scheduler.config)
    for one in (scheduler, other):
        with pytest.raises(ValueError, match="tau_func is a function"):
            one.save_pretrained(tmp_path / "scheduler")
    assert not (tmp_path / "scheduler").exists()
    assert dj.SASolverScheduler.from_config(other.config) == scheduler
