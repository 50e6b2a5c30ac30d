r"""Sampling with consistency models (Song et al. 2023, arXiv:2303.01469).

The network's reading f(x, sigma) is x at sigma_min on the path through x:

    (1)  f(x, sigma) = c_skip(sigma) x + c_out(sigma) F(x / sqrt(sigma^2 + sigma_data^2), timestep),
         f(x, sigma_min) = x                                               [appendix C]

(`ddpm_jax.tables.readings`, equation 5), so one evaluation goes all the way. Further ones go back
to a level below and repeat it [Alg. 1]:

    (2)  x <- f(x, sigma) + s_noise sqrt(sigma'^2 - sigma_min^2) z

The last sigma' is sigma_min, where (2) adds no noise. The network is told 250 log sigma.
"""

from dataclasses import dataclass
from itertools import pairwise
from math import sqrt
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from ddpm_jax.hub.config import CM_FAMILY
from ddpm_jax.schedulers.base import Scheduler
from ddpm_jax.schedulers.edm import Preconditioned
from ddpm_jax.tables.builder import Level
from ddpm_jax.tables.readings import Reading, preconditioned
from ddpm_jax.tables.refine import Clip, Refine
from ddpm_jax.tables.spacing import karras_sigmas
from ddpm_jax.tables.table import Table


@dataclass(frozen=True, kw_only=True)
class CMStochasticIterativeScheduler(Preconditioned):
    """Consistency sampling in one step or several; stochastic.

    Timesteps number the levels of training, from 0 at `sigma_max` to T-1 at `sigma_min`. As in
    diffusers, `timesteps=` descend and are run from the last, the noisiest: [22, 0] begins at 0.

    Attributes:
        num_train_timesteps: T, number of levels of training, and the most steps.
        s_noise: scale of the noise, >= 0, equation (2).
        clip_denoised: clip f to [-1, 1].

    Raises:
        ValueError: at construction, naming every field that is refused.
    """

    family: ClassVar[frozenset[str]] = CM_FAMILY
    order: ClassVar[int] = 0
    stochastic: ClassVar[bool] = True
    whole_timesteps: ClassVar[bool] = True

    num_train_timesteps: int = 40
    s_noise: float = 1.0
    clip_denoised: bool = True

    def _faults(self) -> list[str]:
        faults = list(super()._faults())
        if not self.s_noise >= 0:
            faults.append(f"s_noise must be at least 0, got {self.s_noise}")
        if not self.num_train_timesteps >= 2:
            faults.append(f"num_train_timesteps must be at least 2, got {self.num_train_timesteps}")
        return faults

    def _write(self, levels: list[Level], dtype: Any) -> Table:
        build = self._builder("x")
        for level, end in pairwise(levels):
            square = max(end.sigma**2 - self.sigma_min**2, 0.0)
            build.row(*level, x={"x0": 1.0, "z": self.s_noise * sqrt(square)})  # (2)
        return build.build(levels[0].sigma, dtype, stochastic=True)

    def _reading(self, alpha: float, sigma: float) -> Reading:
        return preconditioned(sigma, self.sigma_data, sigma_min=self.sigma_min)

    def _refine(self) -> Refine | None:
        return Clip(limit=1.0) if self.clip_denoised else None

    # Grids.

    def _sigmas(self, count: int) -> Float[np.ndarray, "n"]:
        places = np.arange(count) * float(self.num_train_timesteps // count)
        return np.append(self._sigma_of(places), self.sigma_min)

    def _levels_of_timesteps(self, timesteps: Float[np.ndarray, "n"]) -> list[Level]:
        return self._levels_of_sigmas(np.append(self._sigma_of(timesteps[::-1]), self.sigma_min))

    def _sigma_of(self, timesteps: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
        ramp = timesteps / (self.num_train_timesteps - 1)
        return karras_sigmas(ramp, self.sigma_max, self.sigma_min, self.rho)

    def _timestep_of(self, sigmas: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
        return 250 * np.log(sigmas)

    def _checked_timesteps(self, grid: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
        return Scheduler._checked_timesteps(self, grid)

    def _checked_sigmas(self, grid: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
        if grid[-1] < self.sigma_min:
            raise ValueError(
                f"sigmas must be at least sigma_min = {self.sigma_min}, where a consistency model "
                f"ends; got {grid[-1]:g}"
            )
        return super()._checked_sigmas(grid)

    def _training_levels(self) -> tuple[Float[np.ndarray, "T"], Float[np.ndarray, "T"]]:
        sigmas = self._sigma_of(np.arange(float(self.num_train_timesteps)))
        return np.ones_like(sigmas), sigmas
