"""Grids by name: their definitions, their ends, and what "dmn" minimises."""

from typing import Any

import numpy as np
import pytest
from scipy.integrate import quad

import ddpm_jax as dj
from ddpm_jax.schedulers import SCHEDULERS
from ddpm_jax.schedulers.betas import BetaScheduler
from ddpm_jax.tables.grids import ALIGNED, GRIDS, bound, named_grid, weights

HIGH, LOW = 157.4, 0.01
STABLE_DIFFUSION: dict[str, Any] = {
    "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012,
}  # fmt: skip


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("steps", [1, 2, 3, 7, 10, 30])
def test_levels_descend_strictly_between_the_ends(name: Any, steps: int) -> None:
    high = ALIGNED[name][0] if name in ALIGNED else HIGH
    grid = named_grid(name, steps, high, LOW)
    assert grid.shape == (steps + 1,)
    assert np.all(np.diff(grid) < 0)
    assert grid[0] == pytest.approx(high)
    assert grid[-1] == (pytest.approx(LOW) if name == "dmn" else 0)


def test_rho_is_even_in_its_root() -> None:
    """EDM's equation 5 with rho 7."""
    roots = named_grid("rho", 9, 80.0, 0.002)[:-1] ** (1 / 7)
    np.testing.assert_allclose(np.diff(roots), (0.002 ** (1 / 7) - 80 ** (1 / 7)) / 8, rtol=1e-9)


def test_log_snr_is_even_in_lambda() -> None:
    np.testing.assert_allclose(
        np.diff(np.log(named_grid("log-snr", 9, HIGH, LOW)[:-1])), np.log(LOW / HIGH) / 8
    )


def test_aligned_grids_are_the_published_ones_at_ten_steps() -> None:
    for name, published in ALIGNED.items():
        grid = named_grid(name, 10, published[0], LOW)  # pyright: ignore[reportArgumentType]
        np.testing.assert_allclose(grid, [*published[:10], 0.0])
    twenty = named_grid("ays-sd15", 20, 14.61, 0.029)
    np.testing.assert_allclose(twenty[:20:2], ALIGNED["ays-sd15"][:10])
    np.testing.assert_allclose(twenty[1] ** 2, twenty[0] * twenty[2])


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 9])
def test_dmn_weights_are_integrals_of_lagrange_polynomials(steps: int) -> None:
    lambdas = np.sort(np.random.default_rng(steps).uniform(-3, 3, steps + 1))
    found = weights(lambdas)
    for step in range(steps):
        nodes = list(range(step, -1, -1))[: min(3, steps - step)]
        assert set(np.flatnonzero(found[step])) <= set(nodes)
        for j in nodes:
            others = [lambdas[k] for k in nodes if k != j]

            def integrand(x: float, node: float = lambdas[j], others: list[Any] = others) -> float:
                return float(np.exp(x) * np.prod([(x - k) / (node - k) for k in others]))

            expected, _ = quad(integrand, lambdas[step], lambdas[step + 1], epsabs=0, epsrel=1e-10)
            np.testing.assert_allclose(found[step, j], expected, rtol=1e-7)


@pytest.mark.parametrize("steps", [2, 4, 5, 8, 9, 10])
def test_dmn_is_a_minimum(steps: int) -> None:
    """The bound has kinks, near which it is least: a search that stops at one fails here."""
    lambdas = -np.log(named_grid("dmn", steps, HIGH, LOW))
    least = bound(lambdas)
    assert least < bound(np.linspace(lambdas[0], lambdas[-1], steps + 1))
    for i in range(1, steps):
        for moved in (-0.05, -0.002, 0.002, 0.05):
            other = lambdas.copy()
            other[i] += moved
            assert bound(other) > least, (i, moved)


@pytest.mark.parametrize("cls", SCHEDULERS, ids=lambda cls: cls.__name__)
def test_every_scheduler_takes_a_grid_or_says_why_not(cls: Any) -> None:
    given = STABLE_DIFFUSION if issubclass(cls, BetaScheduler) else {}
    scheduler = cls(**given)
    for name in GRIDS:
        try:
            table = scheduler.table(6, grid=name, dtype=np.float64)
        except ValueError as error:
            assert "grid" in str(error) or "sigmas" in str(error)  # noqa: PT017
            continue
        limits = scheduler._largest_sigma(), scheduler._smallest_sigma()
        sigmas = named_grid(name, 6, *limits)[:: -1 if cls.ascends else 1]
        same = scheduler.table(sigmas=sigmas, dtype=np.float64)
        np.testing.assert_allclose(table.level, same.level)
        assert np.all(np.isfinite(table.mix))
    if issubclass(cls, BetaScheduler):
        assert len(scheduler.table(6, grid="ays-sd15")) >= 6


def test_one_program_for_all_grids(count_compilations: Any) -> None:
    scheduler = dj.DDIMScheduler(**STABLE_DIFFUSION)

    def denoise(params: Any, x: Any, timestep: Any) -> Any:
        return params * x

    x_T = np.zeros((1, 2, 2, 1), np.float32)
    dj.sample(denoise, np.float32(0.5), scheduler.table(6), x_T)
    with count_compilations() as compiled:
        for name in ("rho", "log-snr", "ays-sd15", "dmn"):
            dj.sample(denoise, np.float32(0.5), scheduler.table(6, grid=name), x_T)
    assert compiled.count == 0
