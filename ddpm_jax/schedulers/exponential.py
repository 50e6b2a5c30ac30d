r"""What the exponential integrators share: DPM-Solver, UniPC, DEIS, SA-Solver.

Each solves the probability-flow ODE, or its stochastic form, exactly in its linear part, in

    (1)  lambda = log(alpha / sigma)

so it needs levels and nothing else of the schedule. The weights of a polynomial's derivatives are

    (2)  phi_1(u) = (e^u - 1) / u,   phi_{k+1}(u) = (phi_k(u) - 1 / k!) / u,
         the integral of e^(u (1 - s)) s^(k-1) / (k-1)! over s in [0, 1]

A step goes from a level to the next one, (alpha', sigma'), over h = lambda' - lambda. Its part of
first order moves along constant (x0, eps), with new noise z in the stochastic forms. m is what the
integral is taken over, and tau the amount of noise, 0 for the ODE and 1 for the reversed SDE:

    (3)  x <- alpha' x0 + d sigma' eps + n sigma' z
         m = x0:   d = e^(-tau^2 h),             n^2 = 1 - e^(-2 tau^2 h)
         m = eps:  d = 1 - tau^2 (e^h - 1),      n^2 = tau^2 (e^2h - 1)

Beyond it m is a polynomial in the place r = (lambda' - lambda) / h of a level within the step:

    (4)  m = r^k adds  - s u k! phi_{k+1}(u)
         m = x0:   s = alpha',                u = -(1 + tau^2) h
         m = eps:  s = (1 + tau^2) sigma',    u = h

References: Lu et al. 2022, arXiv:2206.00927, appendix B; Xue et al. 2023, arXiv:2309.05019
(SA-Solver), for tau.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, expm1, factorial, inf, isnan, log, sqrt
from typing import Any, ClassVar, TypeAlias, Unpack

import numpy as np
from jaxtyping import Float

from ddpm_jax._typing import is_number
from ddpm_jax.schedulers.base import NO_NAMED_GRID, GridOptions, Scheduler
from ddpm_jax.schedulers.ddpm import VarianceType
from ddpm_jax.schedulers.fields import FlowSigmas, SigmaSpacings, Thresholding
from ddpm_jax.tables.builder import Level
from ddpm_jax.tables.spacing import shifted_sigmas, timestep_grid
from ddpm_jax.tables.table import Table

Mixture: TypeAlias = dict[str, float]
"""The new value of a register: a weight for each of the builder's sources."""


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


@dataclass(frozen=True)
class Form:
    """What (3) and (4) depend on.

    Attributes:
        of_x0: m is x0; otherwise eps.
        direction: the builder's source for eps: "eps", or "refined_eps" if x0 is refined.
        tau: the amount of noise, >= 0.
    """

    of_x0: bool
    direction: str
    tau: float = 0.0

    @property
    def noisy(self) -> bool:
        """Whether steps draw noise."""
        return self.tau > 0

    @property
    def integrand(self) -> str:
        """The builder's source for m."""
        return "x0" if self.of_x0 else self.direction

    def first_order(self, end: Level, h: float) -> Mixture:
        """Equation (3)."""
        noise, d, n = self.tau**2, 1.0, 0.0
        if noise and self.of_x0:
            d, n = exp(-noise * h), -expm1(-2 * noise * h)
        elif noise:
            d, n = 1 - noise * expm1(h), noise * expm1(2 * h)
        return {"x0": end.alpha, self.direction: d * end.sigma, "z": sqrt(n) * end.sigma}

    def carried(self, level: Level, end: Level, h: float) -> float:
        """The part of x that is left after a step: its weight where m does not depend on it."""
        if not self.of_x0:
            return end.alpha / level.alpha
        decay = exp(-(self.tau**2) * h) if self.tau else 1.0
        return decay * end.sigma / level.sigma

    def kernel(self, end: Level, h: float) -> tuple[float, float]:
        """The size s and the argument u of (4)."""
        rate = 1 + self.tau**2
        return (end.alpha, -rate * h) if self.of_x0 else (rate * end.sigma, h)


@dataclass(frozen=True, kw_only=True)
class ExponentialIntegrator(Thresholding, SigmaSpacings, FlowSigmas):
    """Base of the exponential integrators.

    A grid of timesteps has one point more than there are steps, of which the last is left out.

    Attributes:
        lower_order_final: lower the order of the last steps.
    """

    lower_order_final: bool = True

    _flow_spacings: ClassVar[tuple[str, ...]] = ()  # the flags that a flow's levels may follow

    def _faults(self) -> Sequence[str]:
        faults = list(super()._faults())
        chosen = [flag for flag in self._flags() if flag not in self._flow_spacings]
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


@dataclass(frozen=True, kw_only=True)
class ClippedSteps(CountedSteps):
    """Integrators of networks that may have a variance, on grids that may leave out most noise.

    Attributes:
        lambda_min_clipped: leave out the noisiest timesteps, with lambda below this; where the grid
            is one of timesteps. -inf leaves out none.
        variance_type: what the network was trained with; the integrators use no variance. The
            channels of a learned one are left out.
    """

    lambda_min_clipped: float = -inf
    variance_type: VarianceType | None = None

    _unchecked: ClassVar[tuple[str, ...]] = (*CountedSteps._unchecked, "lambda_min_clipped")

    def _faults(self) -> Sequence[str]:
        faults, clipped = list(super()._faults()), self.lambda_min_clipped
        if not is_number(clipped) or isnan(clipped):
            faults.append(f"lambda_min_clipped must be a number or -inf, got {clipped!r}")
        return faults

    def _last_timestep(self) -> int:
        log_snrs = -np.log(self.noise_schedule.noise_ratio)
        return int(np.sum(log_snrs >= self.lambda_min_clipped))
