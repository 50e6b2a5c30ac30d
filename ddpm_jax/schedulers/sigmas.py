r"""What the Euler family shares: levels with alpha = 1, in Karras et al.'s sigma.

    (1)  x = x0 + sigma eps,   sigma_t = sqrt((1 - alpha_bar_t) / alpha_bar_t)

Sigma is interpolated between training timesteps, so timesteps may be fractional; the
inverse is linear in log sigma. Reference: Karras et al. 2022, arXiv:2206.00364.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from ddpm_jax.schedulers.betas import BetaScheduler, SpacedTimesteps
from ddpm_jax.tables.builder import Level
from ddpm_jax.tables.schedules import NoiseSchedule

LAST_ALPHA_BAR = 2.0**-24  # zero terminal SNR would make sigma infinite; as diffusers has it


@dataclass(frozen=True, kw_only=True)
class FiniteSigmas(BetaScheduler):
    """Schedulers with a sigma at every timestep: finite at the last, interpolated in between."""

    whole_timesteps: ClassVar[bool] = False

    def _noise_schedule(self, *, rescale: bool = False) -> NoiseSchedule:
        """The schedule of this config, with a finite sigma at the last timestep."""
        schedule = super()._noise_schedule(rescale=rescale)
        if schedule.alpha_bar[-1] > 0:
            return schedule
        return NoiseSchedule(np.append(schedule.alpha_bar[:-1], LAST_ALPHA_BAR))

    def _sigmas(self, timesteps: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
        """Equation (1) at timesteps that may be fractional."""
        ratio = self.noise_schedule.noise_ratio
        return np.interp(timesteps, np.arange(len(ratio)), ratio)

    def _levels_of_timesteps(self, timesteps: Float[np.ndarray, "n"]) -> list[Level]:
        sigmas = np.append(self._sigmas(timesteps), self._last_sigma())[: len(timesteps) + 1]
        return self._paired(np.append(timesteps, -1.0), sigmas)

    def _last_sigma(self) -> float:
        """Where a run ends."""
        return 0.0


@dataclass(frozen=True, kw_only=True)
class SigmaScheduler(SpacedTimesteps, FiniteSigmas):
    """Base of the variance-exploding schedulers."""

    def _training_levels(self) -> tuple[Float[np.ndarray, "T"], Float[np.ndarray, "T"]]:
        ratio = self.noise_schedule.noise_ratio
        return np.ones_like(ratio), ratio

    def _paired(
        self, timesteps: Float[np.ndarray, "n"], sigmas: Float[np.ndarray, "n"]
    ) -> list[Level]:
        return [Level(float(t), 1.0, float(s)) for t, s in zip(timesteps, sigmas, strict=True)]

    def _prior_scale(self, level: Level) -> float:
        """As diffusers' init_noise_sigma.

        Grids that begin at the last timestep start from noise alone, others from noise and data of
        unit variance.
        """
        starts_at_end = self.timestep_spacing in ("linspace", "trailing")
        return level.sigma if starts_at_end else float(np.hypot(level.sigma, 1.0))
