"""Grids of timesteps: every number of steps, against the definitions in integers."""

import math
from typing import Any

import numpy as np
import pytest

import ddpm_jax as dj
from ddpm_jax.tables.spacing import sigma_grid, timestep_grid
from tests.schedulers import reference

T = 1000
EVERY = range(1, T + 1)
SURPLUS = (61, 103, 121, 122, 201, 206, 217, 223, 227, 233)
"""Numbers of steps for which trailing spacing in floating point has one entry too many, -1."""


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_every_grid_rounds_its_definition(spacing: str) -> None:
    """By at most half a step, in integers, and descends. In floating point ties may round either
    way.
    """
    for n in EVERY:
        over, under = reference.positions(spacing, n)
        grid = timestep_grid(spacing, n, T)
        assert grid.shape == (n,)
        assert np.all(grid == np.round(grid)), n
        assert np.all(np.diff(grid) < 0), n
        assert np.all(2 * np.abs(grid.astype(int) * under - over) <= under), n
        assert 0 <= grid[-1] <= grid[0] <= T - 1, n


def test_every_quadratic_grid_is_its_definition_rounded_down() -> None:
    """An integer position may be slightly too small in floating point."""
    for n in EVERY:
        over, under = reference.positions("quadratic", n)
        grid = timestep_grid("quadratic", n, T).astype(int)
        below = over - grid * under
        assert len(grid) == n
        assert np.all((below >= 0) & (below < under) | (below == under)), n


@pytest.mark.parametrize("n", SURPLUS)
def test_trailing_drops_the_extra_entry(n: int) -> None:
    assert len(np.arange(T, 0, -T / n)) == n + 1  # the floating-point result
    grid = timestep_grid("trailing", n, T)
    assert len(grid) == n
    assert grid[-1] >= 0


def test_known_grids() -> None:
    """As published for N = 10: Table 2 of arXiv 2305.08891, and diffusers."""
    assert timestep_grid("leading", 10, T).tolist() == list(range(900, -1, -100))
    assert timestep_grid("trailing", 10, T).tolist() == list(range(999, 0, -100))
    assert timestep_grid("linspace", 10, T).tolist() == list(range(999, -1, -111))
    assert timestep_grid("leading", 600, T).tolist() == list(range(599, -1, -1))
    assert timestep_grid("leading", 300, T).tolist() == list(range(897, -1, -3))


def test_linspace_keeps_fractions_without_rounding() -> None:
    grid = timestep_grid("linspace", 5, T, whole=False)
    np.testing.assert_allclose(grid, [999, 749.25, 499.5, 249.75, 0], rtol=1e-15)


@pytest.mark.parametrize("n", [1, 3, 10, 999])
def test_offset_moves_leading_only(n: int) -> None:
    leading = timestep_grid("leading", n, T)
    np.testing.assert_array_equal(timestep_grid("leading", n, T, steps_offset=1), leading + 1)
    for spacing in ("trailing", "linspace"):
        np.testing.assert_array_equal(
            timestep_grid(spacing, n, T, steps_offset=1), timestep_grid(spacing, n, T)
        )


def test_quadratic_repeats_timesteps_if_dense() -> None:
    """49 distinct of 50, 96 of 100 (arXiv 2010.02502's code); repeats stay, as identity rows."""
    for n, distinct in ((50, 49), (100, 96)):
        grid = timestep_grid("quadratic", n, T)
        assert len(grid) == n
        assert len(set(grid.tolist())) == distinct
        assert grid[0] == 800
        assert grid[-1] == 0
    for cls in (dj.DDPMScheduler, dj.DDIMScheduler):
        table = cls(timestep_spacing="quadratic").table(100, dtype=np.float64)
        repeats = np.flatnonzero(np.diff(table.timestep) == 0)
        assert len(repeats) == 4
        for i in repeats:
            np.testing.assert_allclose(table.mix[i, 0], [1, 0, 0], atol=1e-15)
            assert table.noise_scale is None or table.noise_scale[i] == 0


# Grids of noise levels.


def test_karras_levels() -> None:
    """Karras et al. 2022 (arXiv 2206.00364), equation 5, rho = 7, term by term."""
    high, low, n = 80.0, 0.002, 18
    expected = [
        (high ** (1 / 7) + i / (n - 1) * (low ** (1 / 7) - high ** (1 / 7))) ** 7 for i in range(n)
    ]
    np.testing.assert_allclose(sigma_grid("karras", high, low, n), expected, rtol=1e-13)


def test_exponential_levels_have_one_ratio() -> None:
    grid = sigma_grid("exponential", 80.0, 0.002, 7)
    np.testing.assert_allclose(grid[[0, -1]], [80.0, 0.002], rtol=1e-14)
    np.testing.assert_allclose(grid[1:] / grid[:-1], (0.002 / 80) ** (1 / 6), rtol=1e-13)


def test_beta_levels_are_quantiles() -> None:
    """The share of a Beta(0.6, 0.6) law below each level is even: integrated, not inverted."""
    n, high, low = 9, 14.6, 0.03
    grid = sigma_grid("beta", high, low, n)
    # u = s^(5/3) removes the density's pole: int_0^x t^-0.4 (1-t)^-0.4 dt
    for i, x in enumerate((grid - low) / (high - low)):
        share = _beta_share(x)
        assert abs(share - (1 - i / (n - 1))) < 1e-8


def _beta_share(x: float) -> float:
    if x > 0.5:
        return 1 - _beta_share(1 - x)
    nodes, weights = np.polynomial.legendre.leggauss(60)
    top = x**0.6
    s = top * (nodes + 1) / 2
    integral = top / 2 * float(weights @ (1 - s ** (1 / 0.6)) ** -0.4) / 0.6
    return integral * math.gamma(1.2) / math.gamma(0.6) ** 2


@pytest.mark.parametrize("spacing", ["karras", "exponential", "beta"])
def test_ends_of_levels_are_exact(spacing: str) -> None:
    """Powers, logarithms and sums of the ends would be rounded."""
    rng = np.random.default_rng(0)
    for low, high in np.exp(rng.uniform([-6, 0], [-1, 8], (50, 2))):
        grid = sigma_grid(spacing, float(high), float(low), 11)
        assert (grid[0], grid[-1]) == (high, low)
    assert sigma_grid(spacing, 14.6, 0.03, 1).tolist() == [14.6]  # one level is the highest


@pytest.mark.parametrize("flag", ["karras", "exponential", "beta"])
@pytest.mark.parametrize("cls", [dj.EulerDiscreteScheduler, dj.DPMSolverMultistepScheduler])
def test_zero_terminal_snr_begins_at_the_last_timestep(cls: Any, flag: str) -> None:
    """arXiv 2305.08891, section 3.3; though timesteps before it have higher sigmas."""
    scheduler = cls(
        rescale_betas_zero_snr=True, prediction_type="v_prediction", **{f"use_{flag}_sigmas": True}
    )
    ratio = scheduler.noise_schedule.noise_ratio
    assert ratio[-2] > 2 * ratio[-1]
    told = scheduler.table(10, dtype=np.float64).timestep
    assert told[0] == T - 1
    assert np.all(np.diff(told) < 0)
    if cls is dj.EulerDiscreteScheduler:
        assert scheduler.table(10, s_churn=9.0).timestep[0] == T - 1
