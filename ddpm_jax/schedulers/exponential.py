r"""What the exponential integrators share: DPM-Solver, UniPC, DEIS, SA-Solver.

Each solves the probability-flow ODE, or its stochastic form, exactly in its linear part, in

    (1)  lambda = log(alpha / sigma)

so it needs levels and nothing else of the schedule. Reference: Lu et al. 2022, arXiv:2206.00927.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, log

import numpy as np
from jaxtyping import Float

from ddpm_jax.schedulers.fields import FlowSigmas, SigmaSpacings, Thresholding
from ddpm_jax.tables.builder import Level
from ddpm_jax.tables.spacing import timestep_grid


def log_snr(level: Level) -> float:
    """Equation (1); infinite at the data."""
    return log(level.alpha) - log(level.sigma) if level.sigma > 0 else inf


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
                return np.round(np.linspace(0, last - 1, count + 1)[:0:-1])
            case _:
                return timestep_grid(spacing, count + 1, last, steps_offset=offset)[:-1]

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

    def _levels_of_count(self, count: int) -> list[Level]:
        if not self.use_flow_sigmas:
            return super()._levels_of_count(count)
        sigmas = self._flow_grid(count)
        return self._levels_of_sigmas(np.append(sigmas, self._last_sigma_after(sigmas)))

    def _flow_grid(self, count: int) -> Float[np.ndarray, "n"]:
        """The noise levels of a flow: even steps, shifted to more noise."""
        even = 1 - np.linspace(1, 1 / self.num_train_timesteps, count + 1)[:0:-1]
        return self.flow_shift * even / (1 + (self.flow_shift - 1) * even)

    def _sigma_limits(self, count: int) -> tuple[float, float]:
        ratio = self.noise_schedule.noise_ratio
        return float(ratio[-1]), float(ratio[0])

    def _told(self, sigmas: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
        told = super()._told(sigmas)
        return np.round(told) if self.use_karras_sigmas else told
