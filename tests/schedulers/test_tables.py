"""Sub-grids, custom timesteps, `at`, `noised`, priors and descriptions."""

from typing import Any

import jax
import numpy as np
import pytest

import ddpm_jax as dj
from ddpm_jax.schedulers import SCHEDULERS
from tests.schedulers.matrix import BETA_FAMILIES, FAMILIES, VE, Case, cases, end_level

COLUMNS = ("timestep", "level", "in_scale", "mix", "to_x0", "noise_scale", "log_var")
HEUNS = (dj.HeunDiscreteScheduler, dj.FlowMatchHeunDiscreteScheduler, dj.KarrasVeScheduler)
KEYS = dj.sample_keys(jax.random.key(0, impl="unsafe_rbg"), 2)


def rows_from(table: dj.Table, k: int) -> dict[str, Any]:
    return {
        name: None if getattr(table, name) is None else getattr(table, name)[k:] for name in COLUMNS
    }


@cases(lambda case: case.family.cls.one_row_per_step)
def test_start_leaves_out_the_first_steps(case: Case) -> None:
    """One row per step: the remaining rows equal those of the full table."""
    for call in (*case.deterministic, *case.stochastic):
        n = 10
        full = case.scheduler.table(n, dtype=np.float64, **call)
        for k in (0, 1, n // 2, n - 1):
            part = case.scheduler.table(n, start=k, dtype=np.float64, **call)
            assert len(part) == n - k
            for name, column in rows_from(full, k).items():
                np.testing.assert_array_equal(getattr(part, name), column, err_msg=name)


HISTORIES = (
    dj.PNDMScheduler(),
    dj.PNDMScheduler(skip_prk_steps=True),
    dj.LMSDiscreteScheduler(timestep_spacing="leading"),
    dj.DPMSolverMultistepScheduler(solver_order=3),
    dj.KDPM2DiscreteScheduler(),
    dj.KDPM2AncestralDiscreteScheduler(),
    dj.DPMSolverSDEScheduler(),
    dj.UniPCMultistepScheduler(solver_order=3),
    dj.DEISMultistepScheduler(solver_order=3),
    dj.SASolverScheduler(corrector_order=3),
)


def timesteps_of(scheduler: Any, n: int) -> list[float]:
    """The grid of n steps, without stages."""
    return [level.timestep for level in scheduler._run(n, {}).levels[:-1]]


@pytest.mark.parametrize("scheduler", HISTORIES, ids=lambda one: type(one).__name__)
def test_start_begins_without_a_history(scheduler: dj.Scheduler) -> None:
    """The rest of a run is the run of its timesteps: PNDM repeats its warm-up, LMS its orders."""
    grid = timesteps_of(scheduler, 10)
    for k in (0, 1, 3, 7, 9):
        part = scheduler.table(10, start=k, dtype=np.float64)
        again = scheduler.table(timesteps=grid[k:], dtype=np.float64)
        for name in COLUMNS:
            np.testing.assert_array_equal(getattr(part, name), getattr(again, name))


def test_lms_of_order_one_is_euler() -> None:
    lms = dj.LMSDiscreteScheduler().table(10, dtype=np.float64, order=1)
    euler = dj.EulerDiscreteScheduler().table(10, dtype=np.float64)
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(lms, name), getattr(euler, name))


@pytest.mark.parametrize(
    ("n", "skip", "timesteps"),
    [
        (1, False, [0]),
        (2, False, [500, 250, 250, 0, 0]),
        (3, False, [666, 500, 500, 333, 333, 167, 167, 0, 0]),
        (5, False, [800, 700, 700, 600, 600, 500, 500, 400, 400, 300, 300, 200, 200, 0]),
        (1, True, [0]),
        (2, True, [500, 0, 0]),
        (5, True, [800, 600, 600, 400, 200, 0]),
    ],
)
def test_pndm_visits(n: int, skip: bool, timesteps: list[int]) -> None:
    """min(3, n - 1) Runge-Kutta steps of four evaluations, or a Heun-like first step of two."""
    table = dj.PNDMScheduler(skip_prk_steps=skip).table(n)
    assert table.timestep.tolist() == timesteps


def test_pndm_half_steps_round_toward_the_start() -> None:
    """At t - (t - t_next) // 2: for a stride of 27, 13 before t."""
    timesteps = dj.PNDMScheduler().table(37).timestep
    assert timesteps[:5].tolist() == [972, 959, 959, 945, 945]


@pytest.mark.parametrize("family", BETA_FAMILIES, ids=lambda family: family.name)
def test_custom_timesteps_replace_the_spacing(family: Any) -> None:
    scheduler = family.spaced("leading")
    grid = scheduler.table(10, dtype=np.float64)
    custom = scheduler.table(timesteps=timesteps_of(scheduler, 10), dtype=np.float64)
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(custom, name), getattr(grid, name), err_msg=name)
    uneven = scheduler.table(timesteps=[999, 250, 3])
    assert uneven.timestep[0] == 999
    assert uneven.timestep[-1] == 3
    # An array is accepted too, together with a number of steps.
    again = scheduler.table(10, timesteps=np.array([999, 250, 3]))
    np.testing.assert_array_equal(again.mix, uneven.mix)


def test_fractional_timesteps_are_for_the_euler_family() -> None:
    table = dj.EulerDiscreteScheduler().table(timesteps=[900.5, 2.25], dtype=np.float64)
    ratio = dj.EulerDiscreteScheduler().noise_schedule.noise_ratio
    expected = [(ratio[900] + ratio[901]) / 2, 0.75 * ratio[2] + 0.25 * ratio[3]]
    np.testing.assert_allclose(table.level[:, 1], expected, rtol=1e-14)


@pytest.mark.parametrize("family", BETA_FAMILIES, ids=lambda family: family.name)
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("start", [0, 4])
def test_prior_scale(family: Any, spacing: str, start: int) -> None:
    """1 where variance is preserved; otherwise the first row's sigma, with the data's unit variance
    added under leading spacing, as diffusers has it."""
    table = family.spaced(spacing).table(10, start=start, dtype=np.float64)
    sigma = table.level[0, 1]
    exploding = np.sqrt(sigma**2 + 1) if spacing == "leading" else sigma
    assert table.init_scale == pytest.approx(exploding if family.kind == VE else 1, rel=1e-14)


def test_churn_of_the_first_row_is_in_the_prior() -> None:
    """Karras et al. 2022, Algorithm 2: noise up to the raised sigma before the first evaluation."""
    plain = dj.EulerDiscreteScheduler().table(10, dtype=np.float64)
    churned = dj.EulerDiscreteScheduler().table(10, s_churn=2.0, s_noise=1.1, dtype=np.float64)
    sigma = plain.level[:, 1]
    np.testing.assert_allclose(churned.level[:, 1], 1.2 * sigma, rtol=1e-14)
    added = 1.1 * sigma * np.sqrt(1.2**2 - 1)
    assert churned.init_scale == pytest.approx(np.hypot(sigma[0], added[0]), rel=1e-14)
    np.testing.assert_allclose(churned.noise_scale, [*added[1:], 0], rtol=1e-14)
    # The timestep is that of the raised sigma, but never beyond the last timestep.
    assert churned.timestep[0] == 999
    assert np.all(churned.timestep[1:] > plain.timestep[1:])


@pytest.mark.parametrize("curve", ["linear", "log_linear"])
def test_churn_is_shared_by_the_steps(curve: str) -> None:
    """Karras et al. 2022, Algorithm 2: gamma = S_churn / N, N being the number of steps."""
    scheduler = dj.EulerDiscreteScheduler(interpolation_type=curve)
    plain, churned = (scheduler.table(8, s_churn=s, dtype=np.float64) for s in (0.0, 2.0))
    np.testing.assert_allclose(churned.level[:, 1], 1.25 * plain.level[:, 1], rtol=1e-14)


def test_churn_limits() -> None:
    scheduler = dj.EulerDiscreteScheduler()
    sigma = scheduler.table(10, dtype=np.float64).level[:, 1]
    factor = np.where((np.arange(10) >= 3) & (np.arange(10) <= 7), np.sqrt(2), 1)
    for nudge in (0.0, 1e-14, -1e-14):  # rounding does not move a level across a limit
        limits = {"s_tmin": sigma[7] * (1 + nudge), "s_tmax": sigma[3] * (1 - nudge)}
        some = scheduler.table(10, s_churn=100.0, **limits, dtype=np.float64)
        np.testing.assert_allclose(some.level[:, 1], factor * sigma, rtol=1e-14)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_noised_is_the_forward_process_at_the_first_row(family: Any) -> None:
    x0 = np.asarray(jax.random.normal(jax.random.key(5), (2, 3, 3, 1)))
    call = {"s_churn": 2.0} if family.name == "EulerDiscrete" else {}
    table = family.cls().table(10, start=6, **call)
    z = np.asarray(dj.noise(KEYS, -1, (3, 3, 1)))
    alpha, sigma = table.level[0]
    reached = dj.noised(table, jax.numpy.asarray(x0), KEYS)
    np.testing.assert_allclose(reached, alpha * x0 + sigma * z, rtol=1e-5, atol=1e-6)


# sigmas


@pytest.mark.parametrize("family", BETA_FAMILIES, ids=lambda family: family.name)
def test_custom_sigmas_replace_the_spacing(family: Any) -> None:
    """The last is where the run ends; timesteps are linear in log sigma."""
    scheduler = family.cls()
    ratio = scheduler.noise_schedule.noise_ratio
    sigmas = [ratio[999], np.sqrt(ratio[700] * ratio[701]), ratio[3], 0.0]
    table = scheduler.table(sigmas=sigmas, dtype=np.float64)
    for timestep, sigma in zip([999.0, 700.5, 3.0], sigmas, strict=False):
        level = table.level[table.timestep == np.float32(timestep)][0]
        np.testing.assert_allclose(level[1] / level[0], sigma, rtol=1e-12)


@pytest.mark.parametrize("family", BETA_FAMILIES, ids=lambda family: family.name)
def test_sigmas_of_timesteps_are_those_timesteps(family: Any) -> None:
    scheduler, timesteps = family.cls(), [999, 700, 411, 90, 5]
    ratio = scheduler.noise_schedule.noise_ratio
    by_timestep = scheduler.table(timesteps=timesteps, dtype=np.float64)
    alpha, sigma = end_level(family.plain, by_timestep)
    sigmas = [*(float(ratio[t]) for t in timesteps), sigma / alpha]
    by_sigma = scheduler.table(sigmas=sigmas, dtype=np.float64)
    for name in ("timestep", "level", "mix", "noise_scale"):
        one, other = getattr(by_sigma, name), getattr(by_timestep, name)
        if other is not None:
            np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("dtype", [np.float16, np.int32, "bfloat16"])
def test_dtypes_without_the_precision_are_refused(dtype: Any) -> None:
    with pytest.raises(ValueError, match="dtype must be float32 or float64"):
        dj.DDIMScheduler().table(4, dtype=dtype)


@pytest.mark.parametrize("cls", [cls for cls in SCHEDULERS if not cls.ascends])
def test_a_run_that_ends_above_the_data_tells_the_timesteps_of_its_levels(cls: Any) -> None:
    """Heun's method and its like evaluate the network where the run ends."""
    sigmas = [0.9, 0.5, 0.2, 0.1]
    scheduler = cls(**({"s_churn": 0.0} if cls is dj.KarrasVeScheduler else {}))

    def told(table: dj.Table) -> dict[float, float]:
        ratios = table.level[:, 1] / table.level[:, 0]
        return dict(zip(np.round(ratios, 9).tolist(), table.timestep.tolist(), strict=True))

    ends, goes_on = (
        told(scheduler.table(sigmas=grid, dtype=np.float64)) for grid in (sigmas, [*sigmas, 0.05])
    )
    shared = ends.keys() & goes_on.keys()
    assert len(shared) >= 3
    for level in shared:
        assert ends[level] == pytest.approx(goes_on[level])
    if issubclass(cls, HEUNS):
        assert min(ends) in shared


# at


def test_at_finds_the_row() -> None:
    for scheduler in (dj.DDPMScheduler(), dj.DDIMScheduler()):
        table = scheduler.table(10)
        for i, timestep in enumerate(table.timestep):
            np.testing.assert_array_equal(table.at(float(timestep)).mix, table.mix[i])
    np.testing.assert_array_equal(dj.DDIMScheduler().table(10).at(300).level, table.level[6])


def test_at_names_the_nearest_timesteps() -> None:
    table = dj.DDIMScheduler().table(10)
    with pytest.raises(ValueError, match="333") as error:
        table.at(333.0)
    assert "300" in str(error.value)
    assert "400" in str(error.value)


def test_at_needs_one_row_and_one_register() -> None:
    quadratic = dj.DDIMScheduler(timestep_spacing="quadratic").table(100)
    repeated = float(quadratic.timestep[:-1][np.diff(quadratic.timestep) == 0][0])
    with pytest.raises(ValueError, match="2 times"):
        quadratic.at(repeated)
    with pytest.raises(ValueError, match="register"):
        dj.PNDMScheduler().table(10).at(200.0)


# describe


def test_described_rows_equal_the_table() -> None:
    text = dj.describe(dj.DDIMScheduler(clip_sample=False).table(4))
    lines = text.splitlines()
    assert len(lines) == 5
    assert "4 network evaluations" in lines[0]
    assert all("x <- " in line and "output" in line for line in lines[1:])
    assert " z" not in text
    stochastic = dj.describe(dj.DDPMScheduler().table(4)).splitlines()
    assert all(line.endswith(" z") for line in stochastic[1:-1])
    assert " z" not in stochastic[-1]


def test_described_numbers_are_the_tables() -> None:
    """`x <- 1.25 x - 0.5 output`, parsed."""
    import re

    table = dj.DDIMScheduler(clip_sample=False).table(7)
    for row, line in zip(table, dj.describe(table).splitlines()[1:], strict=True):
        found = re.search(r"x <- ([\d.e+-]+) x ([+-]) ([\d.e+-]+) output", line)
        assert found, line
        a, sign, b = found.groups()
        np.testing.assert_allclose([float(a), float(sign + b)], row.mix[0], rtol=2e-3, err_msg=line)


@cases()
def test_describe_accepts_every_table(case: Case) -> None:
    n = min(3, case.get("num_train_timesteps"))
    for call in (*case.deterministic, *case.stochastic):
        table = case.scheduler.table(n, **call)
        assert len(dj.describe(table).splitlines()) == len(table) + 1
