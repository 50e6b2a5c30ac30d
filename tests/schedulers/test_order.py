"""Measured order of convergence on Gaussian data, where the exact network is known.

For data N(mu, s^2) the marginal at (alpha, sigma) is N(alpha mu, w^2), w^2 = alpha^2 s^2 +
sigma^2, and E[eps | x] = sigma (x - alpha mu) / w^2. The probability flow keeps
(x - alpha mu) / w, which gives the exact end of every path (Song et al. 2020, arXiv 2011.13456,
section 4.3). Up to an inner timestep only: near t = 0 sigma behaves like sqrt(t), which lowers the
order of every method.
"""

import itertools
from typing import Any

import numpy as np
import pytest

import ddpm_jax as dj
from ddpm_jax.schedulers.betas import BetaScheduler
from tests.schedulers.ideal import output_of
from tests.schedulers.matrix import FAMILIES, Family
from tests.schedulers.propagate import moments, propagate

MU, S = 0.4, 0.6
FIRST, LAST = 900, 300  # timesteps between which the error is measured
STRIDES = (20, 10, 4, 2)  # even, for PNDM's half steps; each divides FIRST - LAST

ZERO = np.zeros((1, 1, 1, 1))

# Measured slopes lie well within this of the claim; half an order away is another method.
SLOPE = 0.25


def width(level: np.ndarray) -> float:
    """w: the standard deviation of x."""
    return float(np.hypot(level[0] * S, level[1]))


WARM = (FIRST - 0.02, FIRST - 0.04)
"""Points after the first, so that the first steps of a multistep method, which are of low order,
leave no error that shows."""


def table_down_to(
    scheduler: Any, stride: int, warm: tuple[float, ...] = (), **call: Any
) -> tuple[Any, int]:
    """A table over FIRST, `warm`, FIRST - stride, ..., 0 and the row at which r_0 has come to LAST.

    These are timesteps, or thousandths of sigma where there are no betas.
    """
    grid = [FIRST, *warm, *range(FIRST - stride, -1, -stride)]
    by_sigma = not isinstance(scheduler, BetaScheduler)
    chosen = {"sigmas": [point / 1000 for point in grid]} if by_sigma else {"timesteps": grid}
    table = scheduler.table(**chosen, dtype=np.float64, **call)
    if scheduler.one_row_per_step:
        return table, grid.index(LAST)
    # the first row of the step from there; before it may lie a row at the same level
    at = table.level[:, 1] * 1000 if by_sigma else table.timestep
    return table, int(np.flatnonzero(np.isclose(at, LAST, rtol=1e-9))[-1])


def scheduler_of(cls: Any, prediction: str | None = None, **fields: Any) -> Any:
    """Without what has no order: clipping and a corrector; churn has a test of its own."""
    given = {
        "prediction_type": prediction,
        "clip_sample": False,
        "correct_steps": 0,
        "s_churn": 0.0,
    }
    taken = {name: value for name, value in given.items() if hasattr(cls, name)}
    return cls(**taken | fields)


def slopes(scheduler: Any, table: Any) -> list[tuple[float, float]]:
    """(a, b): the network's output is a x + b mu, which knows E[eps | x]."""
    found = []
    for level in table.level:
        x, mu = np.eye(2)
        eps = level[1] * (x - level[0] * mu) / width(level) ** 2
        found.append(output_of(scheduler, level, (x - level[1] * eps) / level[0], eps))
    return found


def path_error(scheduler: Any, stride: int, **call: Any) -> float:
    """Distance from the exact path at LAST, for a path that starts one width off the mean."""
    table, stop = table_down_to(scheduler, stride, **call)
    level, answers = table.level, slopes(scheduler, table)

    def network(scaled: np.ndarray, i: int) -> np.ndarray:
        a, b = answers[i]
        return a * scaled / table.in_scale[i] + b * MU

    x = np.full((1, 1, 1, 1), level[0, 0] * MU + width(level[0]))
    reached = propagate(table, network, x)[stop - 1].item()
    exact = level[stop, 0] * MU + width(level[stop])
    return abs(reached - exact) / width(level[stop])


def variance_error(scheduler: Any, stride: int, **call: Any) -> float:
    """Relative error of the variance at LAST, propagated exactly: every map is affine."""
    table, stop = table_down_to(scheduler, stride, **call)
    return variance_error_at(scheduler, table, stop)


def variance_error_at(scheduler: Any, table: Any, stop: int) -> float:
    level = table.level
    found = moments(table, slopes(scheduler, table), level[0, 0], width(level[0]) ** 2)
    return abs(found[stop - 1][1] / width(level[stop]) ** 2 - 1)


def fitted_slope(errors: list[float], strides: tuple[int, ...] = STRIDES) -> float:
    return float(np.polyfit(np.log(strides), np.log(errors), 1)[0])


def families(keep: Any) -> pytest.MarkDecorator:
    chosen = [
        pytest.param(family, prediction, id=f"{family.name}-{prediction}")
        for family in FAMILIES
        if keep(family) and not family.cls.ascends
        for prediction in family.predictions
    ]
    return pytest.mark.parametrize(("family", "prediction"), chosen)


@families(lambda family: family.plain.deterministic and family.cls is not dj.LMSDiscreteScheduler)
def test_order_of_the_path(family: Family, prediction: str | None) -> None:
    scheduler = scheduler_of(family.cls, prediction)
    errors = [path_error(scheduler, stride) for stride in STRIDES]
    assert abs(fitted_slope(errors) - family.order) < SLOPE, errors
    assert errors[-1] < 0.01


@families(lambda family: family.plain.stochastic and family.order > 0)
def test_order_of_the_variance(family: Family, prediction: str | None) -> None:
    scheduler = scheduler_of(family.cls, prediction)
    for call in family.plain.stochastic:
        errors = [variance_error(scheduler, stride, **call) for stride in STRIDES]
        assert abs(fitted_slope(errors) - family.order) < SLOPE, (call, errors)
        assert errors[-1] < 0.02


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_pndm_keeps_its_order_without_the_warm_up(prediction: str) -> None:
    """Liu et al. 2022 (arXiv 2202.09778), property 3.3: second order with either start."""
    scheduler = dj.PNDMScheduler(prediction_type=prediction, skip_prk_steps=True)
    errors = [path_error(scheduler, stride) for stride in STRIDES]
    assert abs(fitted_slope(errors) - 2) < SLOPE, errors


# Its whole run is of second order, because its first step is Euler's. That error is small: at these
# strides it shows from order 4 on, where the slope lies between 2 and 4.
@pytest.mark.parametrize(
    "prediction",
    ["epsilon", *(pytest.param(p, marks=pytest.mark.slow) for p in ("sample", "v_prediction"))],
)
@pytest.mark.parametrize("order", [1, 2, 3])
def test_lms_has_the_order_that_it_is_given(order: int, prediction: str) -> None:
    scheduler = dj.LMSDiscreteScheduler(prediction_type=prediction)
    errors = [path_error(scheduler, stride, order=order) for stride in STRIDES]
    assert abs(fitted_slope(errors) - order) < SLOPE, errors


@pytest.mark.parametrize("order", [1, 2, 3, 4, 5])
def test_lms_integrates_polynomials_below_its_order(order: int) -> None:
    """With eps = sigma^d, a step of k levels is exact for d < k, and not for d = k."""
    scheduler, grid = dj.LMSDiscreteScheduler(), range(900, 780, -10)
    table = scheduler.table(timesteps=list(grid), dtype=np.float64, order=order)
    sigma = table.level[:, 1] / table.level[0, 1]
    for degree in range(order + 1):
        path = propagate(table, lambda x, i, d=degree: np.full_like(x, sigma[i] ** d), ZERO)
        steps = np.diff(np.ravel(path[:-1]), prepend=0.0) / table.level[0, 1]
        exact = np.diff(sigma ** (degree + 1)) / (degree + 1)
        wrong = np.abs(steps / exact - 1)[order - 1 :]  # rows before have fewer levels
        assert wrong.max() < 1e-12 if degree < order else wrong.min() > 1e-7, (degree, wrong)


# The orders that solver_order 1, 2, 3 have; no paper has a multistep form of the third, see (1) of
# dpmsolver_multistep.py.
REACHED: dict[Any, tuple[int, ...]] = {
    dj.DPMSolverMultistepScheduler: (1, 2, 2),
    dj.DPMSolverSinglestepScheduler: (1, 2, 3),
    dj.EDMDPMSolverMultistepScheduler: (1, 2, 2),
}
SOLVERS = (
    ("dpmsolver++", 1, "midpoint"),
    ("dpmsolver++", 2, "heun"),
    ("dpmsolver++", 3, "midpoint"),
    ("dpmsolver", 2, "midpoint"),
    ("dpmsolver", 3, "heun"),
    ("sde-dpmsolver++", 2, "midpoint"),
    ("sde-dpmsolver++", 3, "heun"),
    ("sde-dpmsolver", 1, "midpoint"),
    ("sde-dpmsolver", 2, "heun"),
)


@pytest.mark.parametrize(
    ("cls", "form", "solver_order", "solver_type"),
    [
        (cls, *solver)
        for cls, solver in itertools.product(REACHED, SOLVERS)
        if Family(cls).takes({"algorithm_type": solver[0]})
    ],
)
def test_dpm_solvers_have_the_order_of_their_solver(
    cls: Any, form: str, solver_order: int, solver_type: str
) -> None:
    """Of the path, or of the variance where noise is drawn."""
    config = {"algorithm_type": form, "solver_order": solver_order, "solver_type": solver_type}
    config |= {"final_sigmas_type": "sigma_min", "prediction_type": "epsilon"}
    noisy = form.startswith("sde")
    measure = variance_error if noisy else path_error
    strides = STRIDES[1:] if solver_order == 3 else STRIDES[:3]  # (1) shows on fine grids
    errors = [measure(cls(**config), stride) for stride in strides]
    expected = REACHED[cls][solver_order - 1]
    if noisy and cls is dj.DPMSolverSinglestepScheduler:
        expected = 1  # the stages' noise is independent
    assert abs(fitted_slope(errors, strides) - expected) < SLOPE, errors
    assert errors[-1] < 0.02


@pytest.mark.parametrize(
    ("solver_type", "predict_x0", "corrected", "solver_order"),
    [
        ("bh1", True, True, 1),
        ("bh2", False, True, 1),
        ("bh1", True, False, 2),
        ("bh2", False, False, 2),
        ("bh1", False, True, 2),
        ("bh2", True, False, 3),
        ("bh2", True, True, 3),
    ],
)
def test_unipc_has_the_order_of_its_solver(
    solver_type: str, predict_x0: bool, corrected: bool, solver_order: int
) -> None:
    """UniP-p has order p, UniPC-p one more (Zhao et al. 2023, arXiv 2302.04867, theorem 3.1)."""
    scheduler = dj.UniPCMultistepScheduler(
        solver_type=solver_type,
        predict_x0=predict_x0,
        solver_order=solver_order,
        disable_corrector=() if corrected else tuple(range(1000)),
    )
    errors = [path_error(scheduler, stride, warm=WARM) for stride in STRIDES[1:]]
    assert abs(fitted_slope(errors, STRIDES[1:]) - (solver_order + corrected)) < SLOPE, errors


@pytest.mark.parametrize("order", [1, 2, 3])
def test_deis_has_the_order_of_its_solver(order: int) -> None:
    scheduler = dj.DEISMultistepScheduler(solver_order=order)
    errors = [path_error(scheduler, stride, warm=WARM) for stride in STRIDES[1:]]
    assert abs(fitted_slope(errors, STRIDES[1:]) - order) < SLOPE, errors


@pytest.mark.parametrize("form", ["data_prediction", "noise_prediction"])
@pytest.mark.parametrize(
    ("predictor", "corrector", "tau", "order"),
    [
        (1, 1, 0.0, 1),
        (2, 2, 0.0, 2),
        (1, 3, 0.0, 2),
        (3, 4, 0.0, 4),
        (2, 1, 0.5, 1),
        (2, 2, 1.0, 2),
    ],
)
def test_sasolver_has_the_order_of_its_corrector(
    form: str, predictor: int, corrector: int, tau: float, order: int
) -> None:
    """Of k values a corrector makes a step of order k, or one more than its predictor; of the
    variance where noise is drawn."""
    scheduler = dj.SASolverScheduler(
        algorithm_type=form,
        predictor_order=predictor,
        corrector_order=corrector,
        tau_func=lambda timestep: tau,
    )
    measure = variance_error if tau else path_error
    errors = [measure(scheduler, stride, warm=WARM) for stride in STRIDES[1:]]
    assert abs(fitted_slope(errors, STRIDES[1:]) - order) < SLOPE, errors


def test_heun_with_churn_is_of_second_order() -> None:
    """Karras et al. 2022 (arXiv 2206.00364), Algorithm 2, while sigma rises by a part of a step."""
    scheduler, errors = dj.KarrasVeScheduler(s_churn=3.0, s_noise=1.0), []
    for stride in STRIDES:
        table, _ = table_down_to(scheduler, stride)
        steps = (FIRST - LAST) // stride
        errors.append(variance_error_at(scheduler, table, 2 * steps))
    assert abs(fitted_slope(errors) - 2) < SLOPE, errors


def test_a_consistency_model_has_no_error() -> None:
    """Of data N(mu, s^2) the path through x passes sigma_min at mu + (x - mu) w_min / w."""
    scheduler = dj.CMStochasticIterativeScheduler(clip_denoised=False)
    lowest = np.array([1.0, scheduler.sigma_min])
    for steps in (1, 2, 10, 40):
        table = scheduler.table(steps, dtype=np.float64)
        answers = []
        for level in table.level:
            x, mu = np.eye(2)
            read = mu + (x - mu) * width(lowest) / width(level)
            skip, out = table.to_x0[len(answers)]
            answers.append((read - skip * x) / out if out else 0 * x)
        found = moments(table, answers, 1.0, width(table.level[0]) ** 2)
        ends = np.array([*table.level[1:], lowest])
        np.testing.assert_allclose(found, [(1.0, width(end) ** 2) for end in ends], rtol=1e-9)
