r"""Euler's method on the probability-flow ODE, with the levels of betas.

The steps are those of `ddpm_jax.schedulers.churn` (Karras et al. 2022, arXiv:2206.00364, Alg. 2).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Float

from ddpm_jax._typing import TimestepSpacing
from ddpm_jax.schedulers.churn import ChurnedEuler
from ddpm_jax.schedulers.fields import FinalSigmas, SigmaLimits, ZeroTerminalSNR
from ddpm_jax.schedulers.sigmas import SigmaScheduler
from ddpm_jax.tables.builder import Level
from ddpm_jax.tables.spacing import sigma_grid

InterpolationType: TypeAlias = Literal["linear", "log_linear"]
TimestepType: TypeAlias = Literal["discrete", "continuous"]


@dataclass(frozen=True, kw_only=True)
class EulerDiscreteScheduler(  # pyright: ignore[reportIncompatibleMethodOverride]
    FinalSigmas, SigmaLimits, SigmaScheduler, ZeroTerminalSNR, ChurnedEuler
):
    """Euler's method, deterministic or with churn; x0 is never clipped.

    Attributes:
        interpolation_type: "linear": sigma at each timestep. "log_linear": N + 1 even steps of log
            sigma over the whole schedule, the last being the end point, whatever
            `final_sigmas_type` says, as in diffusers.
        timestep_type: "continuous" gives the network log(sigma) / 4; only with "v_prediction".

    Raises:
        ValueError: at construction, naming every field that is refused.
    """

    timestep_spacing: TimestepSpacing = "linspace"
    interpolation_type: InterpolationType = "linear"
    timestep_type: TimestepType = "discrete"

    def _paired(
        self, timesteps: Float[np.ndarray, "n"], sigmas: Float[np.ndarray, "n"]
    ) -> list[Level]:
        if self.timestep_type == "continuous":
            timesteps = np.append(self._timestep_of(sigmas[:-1]), -1.0)
        return super()._paired(timesteps, sigmas)

    def _sigmas(self, timesteps: Float[np.ndarray, "n"]) -> Float[np.ndarray, "..."]:
        """One more than the timesteps, with the end point, under "log_linear"."""
        if self.interpolation_type == "linear":
            return super()._sigmas(timesteps)
        ratio = self.noise_schedule.noise_ratio
        return sigma_grid("exponential", ratio[-1], ratio[0], len(timesteps) + 1)

    def _timestep_of(self, sigmas: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
        if self.timestep_type == "continuous":
            return np.log(sigmas) / 4
        return super()._timestep_of(sigmas)

    def _fault_of_grid(self, name: str) -> str | None:
        if name == "timesteps" and self.timestep_type == "continuous":
            return 'timesteps are those of a "discrete" timestep_type: give sigmas'
        return super()._fault_of_grid(name)

    def _faults(self) -> Sequence[str]:
        faults = list(super()._faults())
        if self.timestep_type == "continuous" and self.prediction_type != "v_prediction":
            faults.append(
                'timestep_type "continuous" needs prediction_type "v_prediction", '
                f"got {self.prediction_type!r}"
            )
        return faults
