"""Properties of every table, without a network.

If the network always answers the same (x0, eps) and x_T = alpha_T x0 + sigma_T eps, a deterministic
table ends at alpha_0 x0 + sigma_0 eps.
"""

from typing import Any

import numpy as np

import ddpm_jax as dj
from ddpm_jax.schedulers.sigmas import FiniteSigmas
from tests.schedulers.ideal import input_scale, output_of, read_of
from tests.schedulers.matrix import CASES, VE, Case, alpha_bar_of, cases, end_level, steps_of
from tests.schedulers.propagate import propagate

SHAPE = (2, 2, 3, 1)
NAMES = (
    *("timestep", "level", "in_scale", "mix", "to_x0"),
    *("init_scale", "noise_scale", "log_var"),
)

# Rounding of float64, amplified where the first alpha is small: x0 = (x - sigma eps) / alpha.
END_POINT = 1e-12
PLAIN_ALPHA = 1 / 200

# float32 holds each column to half a unit in the last place.
CAST = 2.0**-24


def alpha_of(level: np.ndarray) -> float:
    """alpha where alpha^2 + sigma^2 = 1."""
    return float(level[0] / np.hypot(*level))


def tolerance_at(level: np.ndarray) -> float:
    """Rounding at a level. If alpha is 0, nothing is divided by it."""
    alpha = alpha_of(level)
    return END_POINT * max(1.0, PLAIN_ALPHA / alpha if alpha > 0 else 1.0)


def constant_network(case: Case, table: Any, x0: Any, eps: Any) -> Any:
    """Returns the same (x0, eps) at every row."""

    def network(x: np.ndarray, i: int) -> np.ndarray:
        return output_of(case.scheduler, table.level[i], x0, eps)

    return network


def one_spacing(case: Case) -> bool:
    """One spacing only, for properties that do not depend on the spacing."""
    spacing = dict(case.config).get("timestep_spacing", "leading")
    return spacing == "leading" or len(case.config) > 2


def is_exempt(case: Case) -> bool:
    """With v on cosine grids a second evaluation, at x', amplifies the rounding of x'."""
    return (
        not case.family.cls.one_row_per_step
        and case.family.has_betas
        and case.get("prediction_type") == "v_prediction"
        and case.get("beta_schedule") == "squaredcos_cap_v2"
    )


@cases(lambda case: bool(case.deterministic) and not is_exempt(case))
def test_constant_prediction_reaches_the_end_point(case: Case) -> None:
    rng = np.random.default_rng(0)
    x0, eps = rng.uniform(-0.9, 0.9, SHAPE), rng.standard_normal(SHAPE)
    for n in steps_of(case):
        table = case.scheduler.table(n, dtype=np.float64)
        network = constant_network(case, table, x0, eps)
        alpha, sigma = table.level[0]
        last = propagate(table, network, alpha * x0 + sigma * eps)[-1]
        end_alpha, end_sigma = end_level(case, table)
        tolerance = tolerance_at(table.level[0])
        wrong = np.abs(last - (end_alpha * x0 + end_sigma * eps)).max()
        assert wrong <= tolerance, f"n={n}: {wrong:.2e} > {tolerance:.2e}"


def has_training_levels(case: Case) -> bool:
    """False if levels lie between training timesteps or differ from those of the timesteps.

    DDIMInverse tells the network the timestep of the level above.
    """
    config = dict(case.config)
    kinds = ("karras_sigmas", "exponential_sigmas", "beta_sigmas", "lu_lambdas", "flow_sigmas")
    chosen = any(config.get(f"use_{kind}") for kind in kinds)
    spaced = chosen or config.get("interpolation_type") == "log_linear"
    told_above = isinstance(case.scheduler, dj.DDIMInverseScheduler)
    return case.family.has_betas and not spaced and not told_above


@cases(has_training_levels)
def test_level_is_the_forward_process(case: Case) -> None:
    """At whole timesteps a row's (alpha, sigma) are those of training."""
    config = dict(case.config)
    scheduler = case.scheduler
    bar = alpha_bar_of(case).copy()
    if config.get("rescale_betas_zero_snr") and isinstance(scheduler, FiniteSigmas):
        bar[-1] = 2.0**-24  # an infinite sigma is no level; diffusers puts this number there
    for n in steps_of(case):
        table = scheduler.table(n, dtype=np.float64)
        whole = table.timestep == np.round(table.timestep)
        expected = bar[table.timestep[whole].astype(int)]
        alpha, sigma = table.level[whole].T
        # 1e-11: both sides multiply up to a thousand factors, and zero-SNR rescaling cancels digits
        np.testing.assert_allclose(
            alpha**2 / (alpha**2 + sigma**2), expected, rtol=1e-11, atol=1e-14
        )
        if case.family.kind == VE:
            assert np.all(alpha == 1)
        else:
            np.testing.assert_allclose(np.hypot(alpha, sigma), 1, rtol=1e-14)


@cases(one_spacing)
def test_columns(case: Case) -> None:
    """Shapes, types and finite numbers, as the contract lists them."""
    for n in steps_of(case):
        table = case.scheduler.table(n)
        rows, m = len(table), table.mix.shape[1]
        refined = table.refine is not None
        assert table.timestep.shape == table.in_scale.shape == (rows,)
        assert table.level.shape == table.to_x0.shape == (rows, 2)
        assert table.mix.shape == (rows, m, m + 1 + refined)
        assert np.shape(table.init_scale) == ()
        if table.log_var is not None:
            assert table.log_var.shape == (rows, 2)
        for name in NAMES:
            column = getattr(table, name)
            if column is not None:
                assert isinstance(column, np.ndarray | np.float32), name
                assert column.dtype == np.float32, name
                assert np.all(np.isfinite(column)), name


@cases(one_spacing)
def test_cast_once(case: Case) -> None:
    """The float32 table is the float64 table, rounded."""
    n = min(10, case.get("num_train_timesteps"))
    wide, narrow = case.scheduler.table(n, dtype=np.float64), case.scheduler.table(n)
    assert wide.timestep.dtype == narrow.timestep.dtype == np.float32
    np.testing.assert_array_equal(wide.timestep, narrow.timestep)
    for name in ("level", "in_scale", "mix", "to_x0", "init_scale"):
        assert getattr(wide, name).dtype == np.float64, name
        np.testing.assert_allclose(
            getattr(narrow, name), getattr(wide, name), rtol=CAST, atol=1e-40
        )


@cases()
def test_network_input_has_unit_variance(case: Case) -> None:
    """in_scale rescales x to unit variance, or the network is given x itself."""
    table = case.scheduler.table(min(10, case.get("num_train_timesteps")), dtype=np.float64)
    expected = [input_scale(case.scheduler, level) for level in table.level]
    np.testing.assert_allclose(table.in_scale, expected, rtol=1e-14)


@cases(one_spacing)
def test_last_row_adds_no_noise(case: Case) -> None:
    for call in (*case.deterministic, *case.stochastic):
        table = case.scheduler.table(min(10, case.get("num_train_timesteps")), **call)
        if table.noise_scale is not None:
            assert table.noise_scale[-1] == 0
        else:
            assert call in case.deterministic


@cases(lambda case: case.family.cls.one_row_per_step)  # r_0 of a stage may lie off its level's line
def test_to_x0_reads_x0(case: Case) -> None:
    """(r_0, output) -> x0 inverts x = alpha x0 + sigma eps for each prediction type."""
    table = case.scheduler.table(min(10, case.get("num_train_timesteps")), dtype=np.float64)
    x0, eps = 0.3, -1.7
    network, expected = constant_network(case, table, x0, eps), read_of(case.scheduler, x0, eps)
    for i, (alpha, sigma) in enumerate(table.level):
        x = alpha * x0 + sigma * eps
        read = table.to_x0[i] @ np.array([x, network(x, i)])
        assert abs(read - expected) <= tolerance_at(table.level[i])


def test_the_matrix_covers_every_field() -> None:
    """Each config field of each scheduler is set by some case."""
    for family in {case.family for case in CASES}:
        varied = {key for case in CASES if case.family == family for key, _ in case.config}
        assert family.fields <= varied, family.name
