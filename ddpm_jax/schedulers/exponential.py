r"""What the exponential integrators share: DPM-Solver, UniPC, DEIS, SA-Solver.

Each solves the probability-flow ODE, or its stochastic form, exactly in its linear part, in

    (1)  lambda = log(alpha / sigma)

so it needs levels and nothing else of the schedule. The weights of a polynomial's derivatives are

    (2)  phi_1(u) = (e^u - 1) / u,   phi_{k+1}(u) = (phi_k(u) - 1 / k!) / u,
         the integral of e^(u (1 - s)) s^(k-1) / (k-1)! over s in [0, 1]

Reference: Lu et al. 2022, arXiv:2206.00927, appendix B.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from math import expm1, factorial, inf, log
from typing import Any, Unpack

import numpy as np
from jaxtyping import Float

from ddpm_jax.schedulers.base import NO_NAMED_GRID, GridOptions, Scheduler
from ddpm_jax.schedulers.fields import FlowSigmas, SigmaSpacings, Thresholding
from ddpm_jax.tables.builder import Level
from ddpm_jax.tables.spacing import shifted_sigmas, timestep_grid
from ddpm_jax.tables.table import Table


def log_snr(level: Level) -> float:
    """Equation (1); infinite at the data, and minus infinite where nothing is left of them."""
    if level.sigma == 0:
        return inf
    return log(level.alpha) - log(level.sigma) if level.alpha > 0 else -inf


def phis(u: float, count: int) -> list[float]:
    """phi_1, ..., phi_count of (2); upwards from phi_1, or downwards where that loses digits."""
    if abs(u) >= 1:
        found = [expm1(u) / u]
        for k in range(1, count):
            found.append((found[-1] - 1 / factorial(k)) / u)
        return found
    highest = 0.0
    for j in reversed(range(18)):  # the sum of u^j / (j + count)!; 1 / 19! is 8e-18
        highest = highest * u + 1 / factorial(j + count)
    found = [highest]
    for k in reversed(range(1, count)):
        found.append(found[-1] * u + 1 / factorial(k))
    return found[::-1]


@dataclass(frozen=True, kw_only=True)
class ExponentialIntegrator(Thresholding, SigmaSpacings, FlowSigmas):
    """Base of the exponential integrators.

    A grid of timesteps has one point more than there are steps, of which the last is left out.

    Attributes:
        lower_order_final: lower the order of the last steps.
    """

    lower_order_final: bool = True

    def _faults(self) -> Sequence[str]:
        faults, chosen = list(super()._faults()), self._flags()
        if self.use_flow_sigmas and chosen:
            faults.append(f"use_flow_sigmas and {chosen[0]} both choose the noise levels: set one")
        return faults

    def _timestep_grid(self, count: int) -> Float[np.ndarray, "n"]:
        return self._grid_points(count)[:count]

    def _grid_points(self, count: int) -> Float[np.ndarray, "n"]:
        """A point for each step and, but for "trailing", the one that is left out."""
        spacing, offset = self._spacing()
        last = self._last_timestep()
        most = last if spacing in ("linspace", "trailing") else last - 1
        if count > most:
            raise ValueError(
                f"num_inference_steps must be at most {most} with {spacing} spacing over {last} "
                f"timesteps, got {count}"
            )
        match spacing:
            case "trailing":
                stride = self.num_train_timesteps / count
                return np.round(np.arange(last, 0, -stride)[:count]) - 1
            case "linspace":  # as many steps as timesteps repeat one
                return np.round(np.linspace(0, last - 1, count + 1)[::-1])
            case _:
                return timestep_grid(spacing, count + 1, last, steps_offset=offset)

    def _last_timestep(self) -> int:
        """How many of the training timesteps a run uses."""
        return self.num_train_timesteps

    def _sigmas(self, timesteps: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
        if self.use_flow_sigmas:
            return timesteps / self.num_train_timesteps
        return super()._sigmas(timesteps)

    def _timestep_of(self, sigmas: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
        if self.use_flow_sigmas:
            return sigmas * self.num_train_timesteps
        return super()._timestep_of(sigmas)

    def _largest_sigma(self) -> float:
        return 1.0 if self.use_flow_sigmas else super()._largest_sigma()

    def _smallest_sigma(self) -> float:
        if self.use_flow_sigmas:
            raise ValueError(NO_NAMED_GRID)
        return super()._smallest_sigma()

    def _levels_of_count(self, count: int) -> list[Level]:
        if not self.use_flow_sigmas:
            return super()._levels_of_count(count)
        sigmas = self._flow_grid(count)
        return self._levels_of_sigmas(np.append(sigmas, self._last_sigma_after(sigmas)))

    def _levels_of_timesteps(self, timesteps: Float[np.ndarray, "n"]) -> list[Level]:
        if not self.use_flow_sigmas:
            return super()._levels_of_timesteps(timesteps)
        sigmas = self._sigmas(timesteps)
        return self._levels_of_sigmas(np.append(sigmas, self._last_sigma_after(sigmas)))

    def _last_sigma_after(self, sigmas: Float[np.ndarray, "n"]) -> float:
        return min(super()._last_sigma_after(sigmas), float(sigmas[-1]))  # a run never goes back

    def _flow_grid(self, count: int) -> Float[np.ndarray, "n"]:
        """The noise levels of a flow: even steps, shifted to more noise."""
        even = 1 - np.linspace(1, 1 / self.num_train_timesteps, count + 1)[:0:-1]
        return shifted_sigmas(even, self.flow_shift)

    def _sigma_limits(self, count: int) -> tuple[float, float]:
        ratio = self.noise_schedule.noise_ratio
        return float(ratio[-1]), float(ratio[0])

    def _told(self, sigmas: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
        told = super()._told(sigmas)
        return np.round(told) if self.use_karras_sigmas else told


@dataclass(frozen=True, kw_only=True)
class Counted(Scheduler):
    """Methods whose orders depend on the place of a step in the whole run."""

    def table(self, num_inference_steps: int | None = None, **grid: Unpack[GridOptions]) -> Table:
        """The run as a table; see `Scheduler.table`."""
        levels, dtype = self._run(num_inference_steps, grid)
        return self._write(levels, dtype, grid.get("start", 0))

    @abstractmethod
    def _write(self, levels: list[Level], dtype: Any, left_out: int = 0) -> Table:
        """Writes the rows; `left_out` is the number of steps before them in the whole run."""


@dataclass(frozen=True, kw_only=True)
class CountedSteps(Counted, ExponentialIntegrator):
    """Integrators whose orders depend on the place of a step in the whole run."""
