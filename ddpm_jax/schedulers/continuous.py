r"""What the schedulers without betas share: levels that are given by their sigma alone.

    (1)  x = x0 + sigma eps

The levels of a number of steps follow from the config, and the timestep that the network is told
is a function of sigma.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from ddpm_jax.schedulers.base import BEYOND, NO_NAMED_GRID, Scheduler
from ddpm_jax.tables.builder import Level
from ddpm_jax.tables.spacing import sigma_grid


@dataclass(frozen=True, kw_only=True)
class ContinuousScheduler(Scheduler):
    """Base of the schedulers without betas. Timesteps are those that the network is told."""

    whole_timesteps: ClassVar[bool] = False

    @abstractmethod
    def _sigmas(self, count: int) -> Float[np.ndarray, "n"]:
        """The noise levels of a number of steps, and of the end point."""

    @abstractmethod
    def _sigma_of(self, timesteps: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
        """The noise levels at which the network is told timesteps."""

    def _last_sigma(self) -> float:
        """Where a run ends; by default at the data."""
        return 0.0

    def _alpha(self, sigma: float) -> float:
        """The signal's scale at a noise level, by equation (1)."""
        return 1.0

    def _levels_of_count(self, count: int) -> list[Level]:
        return self._levels_of_sigmas(self._sigmas(count))

    def _levels_of_timesteps(self, timesteps: Float[np.ndarray, "n"]) -> list[Level]:
        sigmas = self._sigma_of(timesteps)
        return self._paired(timesteps, np.append(sigmas, min(self._last_sigma(), sigmas[-1])))

    def _levels_of_sigmas(self, sigmas: Float[np.ndarray, "n"]) -> list[Level]:
        return self._paired(self._timestep_of(sigmas[:-1]), sigmas)

    def _paired(
        self, timesteps: Float[np.ndarray, "n"], sigmas: Float[np.ndarray, "..."]
    ) -> list[Level]:
        """The levels of noise levels, one more than the timesteps that the network is told."""
        told = np.append(timesteps, self._end_timestep(sigmas))
        return [
            Level(float(t), self._alpha(float(s)), float(s))
            for t, s in zip(told, sigmas, strict=True)
        ]

    def _checked_timesteps(self, grid: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
        low, high = self._timestep_limits()
        if not (grid[-1] > low and grid[0] <= high):
            raise ValueError(
                f"timesteps are what the network is told, above {low:g} and at most {high:g}; "
                f"got {grid[-1]:g} to {grid[0]:g}"
            )
        return grid

    def _timestep_limits(self) -> tuple[float, float]:
        """What the network is told at sigma 0, and at the largest sigma."""
        return 0.0, float(self._timestep_of(np.array([BEYOND * self._largest_sigma()]))[0])

    def _training_levels(self) -> tuple[Float[np.ndarray, "T"], Float[np.ndarray, "T"]]:
        """Those of the longest run, with ascending noise."""
        sigmas = self._sigmas(self.num_train_timesteps)[-2::-1]
        return np.array([self._alpha(float(s)) for s in sigmas]), sigmas


@dataclass(frozen=True, kw_only=True)
class UnitSigmas(ContinuousScheduler):
    """Noise levels from the data at sigma 0 to noise alone at sigma 1, where alpha is 0."""

    _ends: ClassVar[str]  # what 0 and 1 are, for a message

    def _largest_sigma(self) -> float:
        return 1.0

    def _smallest_sigma(self) -> float:
        raise ValueError(NO_NAMED_GRID)

    def _checked_sigmas(self, grid: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
        if grid[0] > 1:
            raise ValueError(f"sigmas must lie in 0..1, {self._ends}; got {grid[0]:g}")
        return super()._checked_sigmas(grid)


@dataclass(frozen=True, kw_only=True)
class SigmaRange(ContinuousScheduler):
    """Noise levels between two ends.

    They are even steps of log sigma, and the network is told sigma. Subclasses may change both.

    Attributes:
        sigma_min: the last noise level at which the network is evaluated, > 0.
        sigma_max: the first one, above `sigma_min`.
    """

    sigma_min: float
    sigma_max: float

    def _faults(self) -> Sequence[str]:
        faults = list(super()._faults())
        if not 0 < self.sigma_min < self.sigma_max:
            faults.append(
                "sigma_min must be above 0 and below sigma_max, "
                f"got {self.sigma_min} and {self.sigma_max}"
            )
        return faults

    def _largest_sigma(self) -> float:
        return self.sigma_max

    def _smallest_sigma(self) -> float:
        return self.sigma_min

    def _sigmas(self, count: int) -> Float[np.ndarray, "n"]:
        grid = sigma_grid("exponential", self.sigma_max, self.sigma_min, count)
        return np.append(grid, self._last_sigma())

    def _timestep_of(self, sigmas: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
        return sigmas

    def _sigma_of(self, timesteps: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
        return timesteps
