r"""The forward process on the host, in float64: betas and the values derived from them.

    (1)  alpha_bar_t = prod_{s <= t} (1 - beta_s)
    (2)  q(x_t | x_0) = N(sqrt(alpha_bar_t) x_0, (1 - alpha_bar_t) I)
    (3)  alpha_t = sqrt(alpha_bar_t),   sigma_t = sqrt(1 - alpha_bar_t)

Timesteps count from 0 to T - 1, like those of the network; alpha_bar_0 is slightly below 1.

References: Ho et al. 2020, arXiv:2006.11239 (linear); Rombach et al. 2022, arXiv:2112.10752
(scaled_linear); Nichol and Dhariwal 2021, arXiv:2102.09672, eq. 17 (squaredcos_cap_v2);
Hang et al. 2024, arXiv:2407.03297 (laplace); Lin et al. 2024, arXiv:2305.08891, Algorithm 1
(rescaling to zero terminal signal-to-noise ratio).
"""

# pyright: reportUnknownVariableType=false
# numpy leaves the type of linspace open.

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias, get_args

import numpy as np
from jaxtyping import Float

BetaSchedule: TypeAlias = Literal[
    "linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid", "laplace"
]

BETWEEN = ("linear", "scaled_linear", "sigmoid")
"""Schedules from beta_start to beta_end; the others do not use them."""
LEAST_SIGNAL = 1e-60
"""The smallest alpha_bar: then sigma / alpha is 1e30, and float32 still has numbers for it."""
MAX_BETA = 0.999  # arXiv:2102.09672, section 3.2: clipped against singularities near t = T


@dataclass(frozen=True)
class NoiseSchedule:
    """alpha_bar for every training timestep, and the values derived from it.

    Attributes:
        alpha_bar: (T,) float64, decreasing, within [0, 1].
    """

    alpha_bar: Float[np.ndarray, "T"]

    def __len__(self) -> int:
        return len(self.alpha_bar)

    @cached_property
    def alpha(self) -> Float[np.ndarray, "T"]:
        """(T,) signal scale, equation (3)."""
        return np.sqrt(self.alpha_bar)

    @cached_property
    def sigma(self) -> Float[np.ndarray, "T"]:
        """(T,) noise scale, equation (3)."""
        return np.sqrt(1.0 - self.alpha_bar)

    @cached_property
    def noise_ratio(self) -> Float[np.ndarray, "T"]:
        """(T,) sigma / alpha: the sigma of variance-exploding methods. Needs alpha > 0."""
        return np.sqrt((1.0 - self.alpha_bar) / self.alpha_bar)


def noise_schedule(
    beta_schedule: BetaSchedule = "linear",
    *,
    num_train_timesteps: int = 1000,
    beta_start: float = 1e-4,
    beta_end: float = 0.02,
    trained_betas: Sequence[float] | None = None,
    rescale_betas_zero_snr: bool = False,
) -> NoiseSchedule:
    """Builds the schedule from these fields of a scheduler config.

    Args:
        beta_schedule: "linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid" or "laplace".
            "squaredcos_cap_v2" and "laplace" do not use `beta_start` and `beta_end`.
        num_train_timesteps: T, at least 1.
        beta_start: beta of the first timestep, in (0, 1).
        beta_end: beta of the last timestep, in (0, 1).
        trained_betas: (T,) betas in (0, 1) that replace the schedule.
        rescale_betas_zero_snr: shift and rescale so that alpha_bar_{T-1} is exactly 0.

    Raises:
        ValueError: an unknown name, a number out of range, betas of another length, or betas that
            leave no signal at the last timestep.

    >>> import ddpm_jax as dj
    >>> schedule = dj.noise_schedule("linear")
    >>> print(f"{schedule.alpha_bar[0]:.4f} {schedule.alpha_bar[-1]:.1e}")
    0.9999 4.0e-05
    """
    if num_train_timesteps < 1:
        raise ValueError(f"num_train_timesteps must be at least 1, got {num_train_timesteps}")
    betas = (
        _betas(beta_schedule, num_train_timesteps, beta_start, beta_end)
        if trained_betas is None
        else np.asarray(trained_betas, np.float64)
    )
    if betas.shape != (num_train_timesteps,):
        raise ValueError(
            f"trained_betas must have num_train_timesteps = {num_train_timesteps} numbers, "
            f"got shape {betas.shape}"
        )
    if not np.all((betas > 0) & (betas < 1)):
        raise ValueError(
            f"betas must lie strictly between 0 and 1, got {betas.min():g} to {betas.max():g}"
        )
    alpha_bar = np.cumprod(1.0 - betas)
    if alpha_bar[-1] < LEAST_SIGNAL:
        raise ValueError(
            f"the betas leave no signal: alpha_bar is {alpha_bar[-1]:g} at the last of "
            f"{num_train_timesteps} timesteps"
        )
    return NoiseSchedule(_zero_terminal_snr(alpha_bar) if rescale_betas_zero_snr else alpha_bar)


def _betas(name: str, steps: int, start: float, end: float) -> Float[np.ndarray, "T"]:
    if name in BETWEEN and not (0 < start < 1 and 0 < end < 1):
        raise ValueError(f"beta_start and beta_end must lie in (0, 1), got {start:g} and {end:g}")
    match name:
        case "linear":
            return np.linspace(start, end, steps)
        case "scaled_linear":
            return np.linspace(start**0.5, end**0.5, steps) ** 2
        case "squaredcos_cap_v2":
            return _betas_from(_cosine_alpha_bar, steps)
        case "laplace":
            return _betas_from(_laplace_alpha_bar, steps)
        case "sigmoid":
            return start + (end - start) / (1.0 + np.exp(-np.linspace(-6.0, 6.0, steps)))
        case _:
            raise ValueError(
                f"beta_schedule must be one of {', '.join(get_args(BetaSchedule))}, got {name!r}"
            )


def _betas_from(
    alpha_bar: Callable[[Float[np.ndarray, "n"]], Float[np.ndarray, "n"]], steps: int
) -> Float[np.ndarray, "T"]:
    """The betas for which (1) equals a function of continuous time in [0, 1] at each step."""
    edges = alpha_bar(np.arange(steps + 1) / steps)
    return np.minimum(1.0 - edges[1:] / edges[:-1], MAX_BETA)


def _cosine_alpha_bar(time: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    return np.cos((time + 0.008) / 1.008 * np.pi / 2) ** 2  # arXiv:2102.09672, eq. 17


def _laplace_alpha_bar(time: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    """Laplace-distributed log signal-to-noise ratios, discretized as in diffusers."""
    centered = 0.5 - time
    # 1e-6, as in diffusers, keeps the logarithm finite at both ends.
    log_ratio = -0.5 * np.copysign(1.0, centered) * np.log(1.0 - 2.0 * np.abs(centered) + 1e-6)
    return np.sqrt(1.0 / (1.0 + np.exp(-log_ratio)))


def _zero_terminal_snr(alpha_bar: Float[np.ndarray, "T"]) -> Float[np.ndarray, "T"]:
    """arXiv:2305.08891, Algorithm 1: the first alpha does not change, the last becomes 0."""
    alpha = np.sqrt(alpha_bar)
    if len(alpha) < 2:
        raise ValueError("rescale_betas_zero_snr needs num_train_timesteps of at least 2")
    return ((alpha - alpha[-1]) * (alpha[0] / (alpha[0] - alpha[-1]))) ** 2
