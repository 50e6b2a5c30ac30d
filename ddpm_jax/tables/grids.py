r"""Grids by name: noise levels sigma / alpha that a run of any sampler may visit.

A grid is a function of a number of steps N and of the training schedule's largest and smallest
sigma. It gives N + 1 levels, strictly descending; the last is where the run ends. `GRIDS` lists
them all.

    rho       (sigma_max^(1/7) + i / (N - 1) (sigma_min^(1/7) - sigma_max^(1/7)))^7, then 0
              [Karras et al. 2022, arXiv:2206.00364, eq. 5]
    log-snr   even steps of log sigma from sigma_max to sigma_min, then 0
              [Lu et al. 2022, arXiv:2206.00927, section 3.4]
    ays-...   Sabour et al. 2024, arXiv:2404.14507: the levels that the authors publish for 10
              steps with Stable Diffusion 1.5, its XL version and Stable Video Diffusion, then 0.
              Other numbers of steps interpolate log sigma, as the authors say.
    dmn       Xue et al. 2024, arXiv:2402.17376: a multistep method ends at

                (1)  x_N = (sigma_N / sigma_0) x_0 + sigma_N sum_s sum_j w_sj x0(x_j),

              w_sj being the integral over step s of e^lambda times the Lagrange polynomial of node
              j, lambda = log(alpha / sigma). Steps have 1, 2, 3, ..., 3, 2, 1 nodes. If x0(x_j) is
              wrong by e_j = sigma_j^2 / alpha_j, then x_N is wrong by about sigma_N times

                (2)  sum_{s < 3} |(w_sj e_j)_j| + sum_j |sum_{s >= 3} w_sj e_j|,

              and the levels between sigma_max and sigma_min, where the run ends, make (2) least:
              the minimum next to even steps of lambda.
"""

# pyright: reportUnknownMemberType=false, reportMissingTypeStubs=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# numpy and scipy leave parts of their types open.

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Literal, TypeAlias, get_args

import numpy as np
from jaxtyping import Float, Inexact

from ddpm_jax.tables.spacing import sigma_grid

GridName: TypeAlias = Literal["rho", "log-snr", "ays-sd15", "ays-sdxl", "ays-svd", "dmn"]
Sigmas: TypeAlias = Float[np.ndarray, "n"]

ALIGNED: Mapping[str, tuple[float, ...]] = {
    "ays-sd15": (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029),
    "ays-sdxl": (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029),
    "ays-svd": (700.0, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034, 0.002),
}
"""The published levels: ten, and where the last step ends."""

SAME = 0.01
"""Relative; a published grid belongs to a schedule whose ends agree to this."""
NODES = 3
"""The most nodes of a step in (1), and the number of steps that count alone in (2)."""
TINY = 1e-20
"""Of a complex step: its square vanishes beside 1, and no difference is taken."""
WIDEST = 3.0
"""No gap of "dmn" is wider or narrower than the mean by more than about e to this."""


def named_grid(name: GridName, steps: int, sigma_max: float, sigma_min: float) -> Sigmas:
    """The noise levels of a run, by the grid's name.

    Args:
        name: see the list of this module.
        steps: N, at least 1.
        sigma_max: the training schedule's largest sigma / alpha; finite.
        sigma_min: its smallest, > 0.

    Returns:
        (N + 1,) sigma / alpha, float64, strictly descending; the last is where the run ends.

    Raises:
        ValueError: an unknown name, an infinite `sigma_max`, or a published grid for a schedule
            that it was not made for.

    >>> from ddpm_jax.tables.grids import named_grid
    >>> named_grid("log-snr", 3, 100.0, 0.01).round(6).tolist()
    [100.0, 1.0, 0.01, 0.0]
    """
    if name not in GRIDS:
        raise ValueError(f"grid must be one of {', '.join(GRIDS)}, got {name!r}")
    if not np.isfinite(sigma_max):
        raise ValueError(
            f"grid {name!r} needs a finite largest sigma / alpha, and this schedule has no signal "
            "at its last timestep"
        )
    return GRIDS[name](steps, sigma_max, sigma_min)


def _spaced(
    spacing: Literal["karras", "exponential"], steps: int, high: float, low: float
) -> Sigmas:
    return np.append(sigma_grid(spacing, high, low, steps), 0.0)


def _aligned(name: str, steps: int, high: float, low: float) -> Sigmas:
    """A published grid, at any number of steps."""
    published = np.array(ALIGNED[name])
    if abs(published[0] / high - 1) > SAME:
        raise ValueError(
            f"grid {name!r} was made for a schedule whose largest sigma is {published[0]:g}, "
            f"this one's is {high:g}: take another grid"
        )
    places = np.linspace(0, len(published) - 1, steps + 1)
    logs = np.interp(places, np.arange(len(published)), np.log(published))
    return np.append(np.exp(logs[:-1]), 0.0)


@lru_cache(maxsize=64)
def _least(steps: int, high: float, low: float) -> tuple[float, ...]:
    """The levels of "dmn". The variables are the logarithms of the gaps in lambda, and a limit of
    each |sum_s w_sj e_j|: so (2) has no kinks, at which a search ends early, on each machine at
    another place.
    """
    from scipy.optimize import minimize  # imported here, because few need it

    ends = (-np.log(high), -np.log(low))

    def terms(variables: Float[np.ndarray, "n"]) -> Float[np.ndarray, "m"]:
        return _terms(_lambdas(variables[:steps], ends))

    def slopes(variables: Float[np.ndarray, "n"]) -> Float[np.ndarray, "m steps"]:
        moved = variables[:steps] + TINY * 1j * np.eye(steps)  # exact to the last bits
        return np.imag(_terms(_lambdas(moved, ends))).T / TINY

    def within(variables: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
        sums, limits = terms(variables)[1:], variables[steps:]
        return np.append(limits - sums, limits + sums)  # >= 0

    def within_slopes(variables: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n n"]:
        sums, one = slopes(variables)[1:], np.eye(steps)
        return np.block([[-sums, one], [sums, one]])

    def total(variables: Float[np.ndarray, "n"]) -> tuple[float, Float[np.ndarray, "n"]]:
        value = float(terms(variables)[0] + variables[steps:].sum())
        return value, np.append(slopes(variables)[0], np.ones(steps))

    even = np.zeros(steps)
    found = minimize(
        total,
        np.append(even, np.abs(terms(even)[1:])),
        jac=True,
        method="SLSQP",
        bounds=[(-WIDEST, WIDEST)] * steps + [(0, None)] * steps,
        constraints={"type": "ineq", "fun": within, "jac": within_slopes},
    )
    return tuple(np.exp(-_lambdas(found.x[:steps], ends)).tolist())


def _optimized(steps: int, high: float, low: float) -> Sigmas:
    return np.array(_least(steps, float(high), float(low)))


def _lambdas(
    gaps: Inexact[np.ndarray, "*rows steps"], ends: tuple[float, float]
) -> Inexact[np.ndarray, "*rows levels"]:
    """Levels between two ends, by the logarithms of their gaps up to a common factor."""
    parts = np.cumsum(np.exp(gaps - np.real(gaps).max()), axis=-1)
    inner = ends[0] + (ends[1] - ends[0]) * parts / parts[..., -1:]
    return np.concatenate([np.full_like(inner[..., :1], ends[0]), inner], axis=-1)


def bound(lambdas: Float[np.ndarray, "levels"]) -> float:
    """The bound (2), where alpha^2 + sigma^2 = 1."""
    return float(np.abs(_terms(lambdas)).sum())


def _terms(lambdas: Inexact[np.ndarray, "*rows levels"]) -> Inexact[np.ndarray, "*rows levels"]:
    """The first sum of (2), and the sums over s of its second. Complex levels give derivatives:
    f(x + i h) is f(x) + i h f'(x).
    """
    alpha, sigma = (1 + np.exp(-2 * lambdas)) ** -0.5, (1 + np.exp(2 * lambdas)) ** -0.5
    wrong = weights(lambdas) * (sigma**2 / alpha)[..., None, :-1]
    first = np.sqrt((wrong[..., :NODES, :] ** 2).sum(-1)).sum(-1, keepdims=True)
    return np.concatenate([first, wrong[..., NODES:, :].sum(-2)], axis=-1)


def weights(
    lambdas: Inexact[np.ndarray, "*rows levels"],
) -> Inexact[np.ndarray, "*rows steps steps"]:
    """The weights w of (1), one row a step.

    With u = lambda - b at the end b of a step of length h,

        (3)  M_k = integral of e^u u^k = -(-h)^k e^(-h) - k M_(k-1),   M_0 = 1 - e^(-h).
    """
    h, end = np.diff(lambdas), np.exp(lambdas[..., 1:])
    zeroth = -np.expm1(-h)
    first = h * np.exp(-h) - zeroth
    moments = np.stack([zeroth, first, -(h**2) * np.exp(-h) - 2 * first], axis=-1)
    steps = h.shape[-1]
    found = np.zeros((*h.shape, steps), h.dtype)
    for step in range(steps):
        count = min(step + 1, NODES, steps - step)
        nodes = np.arange(step, step - count, -1)
        u = lambdas[..., nodes] - lambdas[..., step + 1, None]
        # sum_j w_j u_j^k = M_k: the rule is exact for polynomials through its nodes
        powers = u[..., None, :] ** np.arange(count)[:, None]
        exact = np.linalg.solve(powers, moments[..., step, :count, None])[..., 0]
        found[..., step, nodes] = end[..., step, None] * exact
    return found


GRIDS: Mapping[GridName, Callable[[int, float, float], Sigmas]] = {
    "rho": partial(_spaced, "karras"),
    "log-snr": partial(_spaced, "exponential"),
    "ays-sd15": partial(_aligned, "ays-sd15"),
    "ays-sdxl": partial(_aligned, "ays-sdxl"),
    "ays-svd": partial(_aligned, "ays-svd"),
    "dmn": _optimized,
}
assert set(GRIDS) == set(get_args(GridName))
