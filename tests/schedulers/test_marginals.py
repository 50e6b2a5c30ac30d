"""Stochastic tables, as distributions propagated exactly with numbers.

For a single data point x0 the exact network is eps = (x - alpha x0) / sigma. The update of a row
is then x' = a x + b x0 + s z, so a Gaussian stays one, and each row's (mean, variance) must be
those of the forward process: mean alpha x0, variance sigma^2.

`fixed_large` is exact for data of unit variance instead (Ho et al. 2020, arXiv 2006.11239, section
3.2): there the network is eps = sigma x, and the variance of x stays 1.
"""

import dataclasses
from typing import Any

import numpy as np

from tests.schedulers.ideal import output_of
from tests.schedulers.matrix import Case, cases, end_level, steps_of
from tests.schedulers.propagate import moments
from tests.schedulers.test_invariants import PLAIN_ALPHA, alpha_of

# A thousand multiplications of float64; sums of terms that cancel near the first row.
EXACT = 1e-11

LARGE = ("fixed_large", "fixed_large_log")
LEARNED = ("learned", "learned_range")


def moments_of(case: Case, table: Any, unit_data: bool = False) -> np.ndarray:
    """(mean over x0, variance) of r_0 after each row, from the exact forward process at row 0.

    The exact network reads x0 itself, or E[x0 | x] = alpha x / (alpha^2 + sigma^2) of unit data.
    """
    answers = []
    for level in table.level:
        alpha, sigma = level
        x0 = np.array([alpha / (level @ level), 0.0] if unit_data else [0.0, 1.0])  # of (x, x0)
        eps = (np.array([1.0, 0.0]) - alpha * x0) / sigma
        answers.append(output_of(case.scheduler, level, x0, eps))
    alpha, sigma = table.level[0]
    start = (0.0, alpha**2 + sigma**2) if unit_data else (alpha, sigma**2)
    return np.array(moments(table, answers, *start))


def is_single_point(case: Case) -> bool:
    if not (case.stochastic and case.exact):
        return False
    config = dict(case.config)
    of_eps = config.get("algorithm_type") in ("sde-dpmsolver", "noise_prediction")
    return config.get("variance_type") not in (*LARGE, *LEARNED) and not of_eps


@cases(is_single_point)
def test_single_point_marginal_of_every_row(case: Case) -> None:
    for call in (*case.stochastic, *case.deterministic):
        for n in steps_of(case):
            table = case.scheduler.table(n, dtype=np.float64, **call)
            found = moments_of(case, table)
            alpha, sigma = table.level[1:].T
            rtol = EXACT * amplified(case, table.level[0])
            np.testing.assert_allclose(found[:-1, 0], alpha, rtol=rtol)
            np.testing.assert_allclose(found[:-1, 1], sigma**2, rtol=rtol, atol=EXACT / 100)


def amplified(case: Case, level: np.ndarray) -> float:
    """A second evaluation in a step reads the rounding of x, sigma 2^-53, as part of eps, and that
    is multiplied by a step as long as sigma.
    """
    if case.family.cls.one_row_per_step:
        return 1.0
    return max(1.0, PLAIN_ALPHA / alpha_of(level)) ** 2


@cases(is_single_point)
def test_stochastic_tables_end_at_the_level_of_the_config(case: Case) -> None:
    """The last row's marginal: x0 itself, or alpha_0 x0 + sigma_0 eps."""
    for call in case.stochastic:
        table = case.scheduler.table(steps_of(case)[-1], dtype=np.float64, **call)
        mean, variance = moments_of(case, table)[-1]
        alpha, sigma = end_level(case, table)
        assert abs(mean - alpha) < EXACT
        assert abs(variance - sigma**2) < EXACT


@cases(lambda case: "variance_type" in case.family.fields and case.get("variance_type") in LARGE)
def test_fixed_large_is_exact_on_unit_data(case: Case) -> None:
    for n in steps_of(case):
        table = case.scheduler.table(n, dtype=np.float64)
        found = moments_of(case, table, unit_data=True)
        np.testing.assert_allclose(found[:-1, 1], 1, rtol=EXACT)
        # the last row gives E[x0 | x], without noise
        np.testing.assert_allclose(found[-1, 1], table.level[-1, 0] ** 2, rtol=EXACT)


def is_loud(case: Case) -> bool:
    """SA-Solver has noise from timestep 200 on."""
    return is_single_point(case) and not (
        case.family.name == "SASolver" and case.get("num_train_timesteps") < 200
    )


@cases(is_loud)
def test_the_test_can_fail(case: Case) -> None:
    """A tenth of a percent more noise is seen."""
    call = case.stochastic[-1]
    n = min(10, case.get("num_train_timesteps"))
    table = case.scheduler.table(n, dtype=np.float64, **call)
    louder = dataclasses.replace(table, noise_scale=table.noise_scale * 1.001)
    found = moments_of(case, louder)
    assert np.abs(found[:-1, 1] / table.level[1:, 1] ** 2 - 1).max() > 1e-6
