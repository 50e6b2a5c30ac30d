r"""What the schedulers of preconditioned networks share (Karras et al. 2022, arXiv:2206.00364).

At alpha = 1 the network F and its reading are those of Table 1,

    (1)  x0 = c_skip(sigma) x + c_out(sigma) F(c_in(sigma) x, log(sigma) / 4)

(`ddpm_jax.tables.readings`, equation 5), and the N noise levels are

    (2)  sigma_i = (sigma_max^(1/rho) + i / (N - 1) (sigma_min^(1/rho) - sigma_max^(1/rho)))^rho

for i = 0, ..., N-1 [eq. 5], or even steps of log sigma. After the last one, the run ends at 0 or
stays.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Float

from ddpm_jax.hub.config import EDM_FAMILY
from ddpm_jax.schedulers.continuous import SigmaRange
from ddpm_jax.tables.readings import Reading, preconditioned
from ddpm_jax.tables.spacing import sigma_grid


@dataclass(frozen=True, kw_only=True)
class Preconditioned(SigmaRange):
    """The fields of equations (1) and (2).

    Attributes:
        sigma_min: the last noise level at which the network is evaluated, > 0.
        sigma_max: the first one, above `sigma_min`.
        sigma_data: standard deviation of the data, > 0, in (1).
        rho: how much denser the levels are near `sigma_min`, > 0, in (2).
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    sigma_data: float = 0.5
    rho: float = 7.0

    def _faults(self) -> Sequence[str]:
        positive = {"sigma_data": self.sigma_data, "rho": self.rho}
        wrong = [f"{k} must be above 0, got {v}" for k, v in positive.items() if not v > 0]
        return [*super()._faults(), *wrong]


@dataclass(frozen=True, kw_only=True)
class EDMScheduler(Preconditioned):
    """Base of the schedulers of EDM. Timesteps are log(sigma) / 4.

    Attributes:
        num_train_timesteps: the most steps; timestep t of `add_noise` is the t-th of these levels.
        sigma_schedule: equation (2), or even steps of log sigma.
        prediction_type: "epsilon" is the network of (1); "v_prediction" answers with the opposite.
        final_sigmas_type: end at sigma 0, or stay at `sigma_min` in the last step.
    """

    family: ClassVar[frozenset[str]] = EDM_FAMILY
    sigma_schedule: Literal["karras", "exponential"] = "karras"
    prediction_type: Literal["epsilon", "v_prediction"] = "epsilon"
    final_sigmas_type: Literal["zero", "sigma_min"] = "zero"

    def _reading(self, alpha: float, sigma: float) -> Reading:
        sign = 1.0 if self.prediction_type == "epsilon" else -1.0
        return preconditioned(sigma, self.sigma_data, sign=sign)

    def _sigmas(self, count: int) -> Float[np.ndarray, "n"]:
        grid = sigma_grid(self.sigma_schedule, self.sigma_max, self.sigma_min, count, self.rho)
        return np.append(grid, self._last_sigma())

    def _last_sigma(self) -> float:
        return 0.0 if self.final_sigmas_type == "zero" else self.sigma_min

    def _timestep_of(self, sigmas: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
        return np.log(sigmas) / 4

    def _sigma_of(self, timesteps: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
        return np.exp(4 * timesteps)

    def _timestep_limits(self) -> tuple[float, float]:
        return -np.inf, super()._timestep_limits()[1]
