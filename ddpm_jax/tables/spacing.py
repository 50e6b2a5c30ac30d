"""Grids: the timesteps or noise levels that a sampler visits.

Grids of timesteps in 0..T-1 for N steps, in descending order (Lin et al. 2024, arXiv:2305.08891,
Table 2; `quadratic` is Song et al. 2021, arXiv:2010.02502, appendix D.2, as in their CIFAR-10
code):

    leading     i * floor(T / N) + offset
    trailing    round(T - i T / N) - 1
    linspace    i (T - 1) / (N - 1), rounded half to even with `whole`
    quadratic   floor((i sqrt(0.8 T) / (N - 1))^2); repeats timesteps if N is large

Grids of noise levels between sigma_max and sigma_min: Karras et al. 2022, arXiv:2206.00364,
eq. 5, with rho = 7 by default; equal steps in log sigma; quantiles of a Beta(0.6, 0.6) distribution
(Lee et al. 2024, arXiv:2407.12173).

Noise levels of flow matching are moved to more noise by s sigma / (1 + (s - 1) sigma) (Esser et al.
2024, arXiv:2403.03206, eq. 23).
"""

# pyright: reportUnnecessaryIsInstance=false, reportMissingTypeStubs=false
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false
# Users are not type-checked; numpy and scipy leave parts of their types open.

from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Float

from ddpm_jax._typing import TimestepSpacing, is_whole

SigmaSpacing: TypeAlias = Literal["karras", "exponential", "beta"]

KARRAS_RHO = 7.0
BETA_SHAPE = 0.6


def timestep_grid(
    spacing: TimestepSpacing,
    num_inference_steps: int,
    num_train_timesteps: int,
    *,
    steps_offset: int = 0,
    whole: bool = True,
) -> Float[np.ndarray, "n"]:
    """The timesteps of an inference run, descending.

    Args:
        spacing: "leading", "trailing", "linspace" or "quadratic".
        num_inference_steps: N, in 1..num_train_timesteps.
        num_train_timesteps: T.
        steps_offset: added for "leading" only.
        whole: round "linspace" to integers. The Euler family does not round.

    Returns:
        (N,) float64 in 0..T-1, strictly descending ("quadratic" may repeat).

    Raises:
        ValueError: an unknown name, N out of range, or an offset that leads beyond T - 1.
    """
    count, total = num_inference_steps, num_train_timesteps
    check_count(count, total)
    match spacing:
        case "leading":
            grid = np.arange(count)[::-1] * (total // count) + steps_offset
            if grid[0] >= total:
                raise ValueError(
                    f"steps_offset={steps_offset} makes the first of {count} steps timestep "
                    f"{grid[0]}, beyond the last one, {total - 1}: choose fewer steps or a "
                    "smaller offset"
                )
        case "trailing":
            # The slice drops an (N+1)th entry that rounding adds for some N (61, 103, 121, ...).
            grid = np.round(np.arange(total, 0, -total / count)[:count]) - 1
        case "linspace":
            grid = np.linspace(0, total - 1, count)[::-1]
            grid = np.round(grid) if whole else grid
        case "quadratic":
            grid = np.floor(np.linspace(0, np.sqrt(0.8 * total), count)[::-1] ** 2)
        case _:
            raise ValueError(
                "timestep_spacing must be leading, trailing, linspace or quadratic, "
                f"got {spacing!r}"
            )
    return grid.astype(np.float64)


def check_count(num_inference_steps: int, num_train_timesteps: int) -> None:
    """Refuses a number of steps that is not a whole number in 1..T."""
    if not is_whole(num_inference_steps) or not 1 <= num_inference_steps <= num_train_timesteps:
        raise ValueError(
            "num_inference_steps must be a whole number in 1..num_train_timesteps = "
            f"{num_train_timesteps}, got {num_inference_steps!r}"
        )


def sigma_grid(
    spacing: SigmaSpacing,
    sigma_max: float,
    sigma_min: float,
    count: int,
    rho: float = KARRAS_RHO,
) -> Float[np.ndarray, "n"]:
    """The noise levels of an inference run, descending from `sigma_max` to `sigma_min`.

    Args:
        spacing: "karras", "exponential" or "beta".
        sigma_max: the first level, > 0.
        sigma_min: the last level, > 0.
        count: number of levels, at least 1 (one level is `sigma_max`).
        rho: how much denser "karras" is near `sigma_min`, > 0.

    Returns:
        (count,) float64. The ends are exact: so they have the timesteps of the ends of training,
        and a run may stay at the last.
    """
    ramp = np.linspace(0.0, 1.0, count)
    match spacing:
        case "karras":
            grid = karras_sigmas(ramp, sigma_max, sigma_min, rho)
        case "exponential":
            grid = np.exp(np.log(sigma_max) + ramp * (np.log(sigma_min) - np.log(sigma_max)))
        case "beta":
            from scipy.stats import beta  # imported here, because it takes 0.3 s and few need it

            quantiles = np.asarray(beta.ppf(1.0 - ramp, BETA_SHAPE, BETA_SHAPE))
            grid = sigma_min + quantiles * (sigma_max - sigma_min)
    grid[0] = sigma_max
    grid[1:][-1:] = sigma_min
    return grid


def karras_sigmas(
    ramp: Float[np.ndarray, "n"], sigma_max: float, sigma_min: float, rho: float
) -> Float[np.ndarray, "n"]:
    """Noise levels at places of a ramp, from 0 at `sigma_max` to 1 at `sigma_min`.

    Raises:
        ValueError: no float holds sigma_max^(1 / rho).
    """
    try:  # Python's floats overflow with an error, NumPy's with a warning
        high, low = float(sigma_max) ** (1 / rho), float(sigma_min) ** (1 / rho)
    except OverflowError:
        raise ValueError(f"rho = {rho:g} is too small for sigma_max = {sigma_max:g}") from None
    # Not sigma_max * (1 + ramp * (low / high - 1)) ** rho, which rounds otherwise at sigma_min, and
    # consistency models take the root of a difference from it.
    return (high + ramp * (low - high)) ** rho


def shifted_sigmas(sigmas: Float[np.ndarray, "n"], shift: float) -> Float[np.ndarray, "n"]:
    """Noise levels of flow matching in [0, 1], moved to more noise if `shift` is above 1."""
    return shift * sigmas / (1 + (shift - 1) * sigmas)


def stretched_sigmas(sigmas: Float[np.ndarray, "n"], terminal: float) -> Float[np.ndarray, "n"]:
    """Noise levels of flow matching, stretched from noise so that the last one is `terminal`."""
    return 1 - (1 - sigmas) * (1 - terminal) / (1 - sigmas[-1])
