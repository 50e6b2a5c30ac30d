"""Groups of fields that diffusers gives to some schedulers, each with its own faults.

A group adds fields and no other defaults: a scheduler lists the groups that it has before its
base, and states defaults that differ from the base's itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from ddpm_jax.schedulers.base import LEVEL_OPTIONS, GridOptions, Scheduler
from ddpm_jax.schedulers.betas import BetaScheduler
from ddpm_jax.schedulers.sigmas import FiniteSigmas
from ddpm_jax.tables.builder import Level
from ddpm_jax.tables.readings import Reading
from ddpm_jax.tables.refine import Clip, DynamicThreshold, Refine
from ddpm_jax.tables.schedules import NoiseSchedule
from ddpm_jax.tables.spacing import SigmaSpacing, sigma_grid

USE_SIGMAS = "one of use_karras_sigmas, use_exponential_sigmas, use_beta_sigmas"


HIGHEST_ORDER = 3


@dataclass(frozen=True, kw_only=True)
class SolverOrder(Scheduler):
    """Chooses the order of a method.

    Attributes:
        solver_order: the highest order of a step, 1 to 3.
    """

    solver_order: int = 2

    def _faults(self) -> Sequence[str]:
        faults = list(super()._faults())
        if not 1 <= self.solver_order <= HIGHEST_ORDER:
            faults.append(f"solver_order must lie in 1..{HIGHEST_ORDER}, got {self.solver_order}")
        return faults


@dataclass(frozen=True, kw_only=True)
class Clipping(Scheduler):
    """Clips the predicted x0.

    Attributes:
        clip_sample: clip the predicted x0.
        clip_sample_range: to plus and minus this, > 0.
    """

    clip_sample: bool = True
    clip_sample_range: float = 1.0

    def _faults(self) -> Sequence[str]:
        faults = list(super()._faults())
        if not self.clip_sample_range > 0:
            faults.append(f"clip_sample_range must be above 0, got {self.clip_sample_range}")
        return faults

    def _refine(self) -> Refine | None:
        return Clip(limit=self.clip_sample_range) if self.clip_sample else super()._refine()


@dataclass(frozen=True, kw_only=True)
class Thresholding(Scheduler):
    """Thresholds the predicted x0 dynamically; listed before `Clipping`, over which it wins.

    Attributes:
        thresholding: threshold dynamically (arXiv:2205.11487); goes before clip_sample.
        dynamic_thresholding_ratio: the quantile, in [0, 1].
        sample_max_value: the largest threshold, > 0.
    """

    thresholding: bool = False
    dynamic_thresholding_ratio: float = 0.995
    sample_max_value: float = 1.0

    def _faults(self) -> Sequence[str]:
        faults, ratio = list(super()._faults()), self.dynamic_thresholding_ratio
        if not 0 <= ratio <= 1:
            faults.append(f"dynamic_thresholding_ratio must lie in [0, 1], got {ratio}")
        if not self.sample_max_value > 0:
            faults.append(f"sample_max_value must be above 0, got {self.sample_max_value}")
        return faults

    def _refine(self) -> Refine | None:
        if not self.thresholding:
            return super()._refine()
        return DynamicThreshold(
            ratio=self.dynamic_thresholding_ratio, max_value=self.sample_max_value
        )


@dataclass(frozen=True, kw_only=True)
class ZeroTerminalSNR(BetaScheduler):
    """Rescales the betas to zero terminal signal-to-noise ratio.

    Attributes:
        rescale_betas_zero_snr: leave no signal at the last timestep (arXiv:2305.08891); next to
            none where sigma would be infinite.
    """

    rescale_betas_zero_snr: bool = False

    def _faults(self) -> Sequence[str]:
        faults = list(super()._faults())
        if self.rescale_betas_zero_snr and self.prediction_type == "epsilon":
            faults.append(
                "rescale_betas_zero_snr leaves no signal at the last timestep, where "
                'prediction_type "epsilon" says nothing about x0; use "v_prediction" or "sample"'
            )
        return faults

    def _noise_schedule(self, *, rescale: bool = False) -> NoiseSchedule:
        return super()._noise_schedule(rescale=rescale or self.rescale_betas_zero_snr)


@dataclass(frozen=True, kw_only=True)
class AlphaToOne(BetaScheduler):
    """Chooses the level with the least noise.

    Attributes:
        set_alpha_to_one: it is the data (alpha 1); otherwise the level of timestep 0.
    """

    set_alpha_to_one: bool = True

    def _end(self) -> Level:
        return super()._end() if self.set_alpha_to_one else self._levels_at(np.zeros(1))[0]


@dataclass(frozen=True, kw_only=True)
class SigmaFlags(Scheduler):
    """Chooses how noise levels are spaced.

    Attributes:
        use_karras_sigmas: noise levels by arXiv:2206.00364, eq. 5.
        use_exponential_sigmas: noise levels in even steps of log sigma.
        use_beta_sigmas: noise levels at quantiles of Beta(0.6, 0.6), arXiv:2407.12173.
    """

    use_karras_sigmas: bool = False
    use_exponential_sigmas: bool = False
    use_beta_sigmas: bool = False

    def _faults(self) -> Sequence[str]:
        faults, chosen = list(super()._faults()), self._flags()
        if len(chosen) > 1:
            faults.append(f"only one of {' and '.join(chosen)} may be set")
        return faults

    def _flags(self) -> list[str]:
        """The fields that choose noise levels and are set; at most one may be."""
        flags = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")
        return [flag for flag in flags if getattr(self, flag)]

    def _sigma_spacing(self) -> SigmaSpacing | None:
        if self.use_karras_sigmas:
            return "karras"
        if self.use_exponential_sigmas:
            return "exponential"
        return "beta" if self.use_beta_sigmas else None

    def _levels(self, num_inference_steps: int | None, grid: GridOptions) -> list[Level]:
        for name in LEVEL_OPTIONS:
            if grid.get(name) is not None and (fault := self._fault_of_grid(name)):
                raise ValueError(fault)
        return super()._levels(num_inference_steps, grid)

    def _fault_of_grid(self, name: str) -> str | None:
        """Why a run cannot be given timesteps, or sigmas, or None."""
        flags = self._flags()
        return f"{flags[0]} and {name} both choose the noise levels: give one" if flags else None


@dataclass(frozen=True, kw_only=True)
class SigmaSpacings(SigmaFlags, FiniteSigmas):
    """Chooses noise levels by their sigma; their timesteps follow."""

    def _levels_of_count(self, count: int) -> list[Level]:
        spacing = self._sigma_spacing()
        if spacing is None:
            return super()._levels_of_count(count)
        sigmas = sigma_grid(spacing, *self._sigma_limits(count), count)
        timesteps = np.append(self._told(sigmas), -1.0)
        return self._paired(timesteps, np.append(sigmas, self._last_sigma_after(sigmas)))

    def _told(self, sigmas: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
        """The timesteps that the network is told at chosen noise levels."""
        return self._timestep_of(sigmas)

    def _last_sigma_after(self, sigmas: Float[np.ndarray, "n"]) -> float:
        """Where a run of chosen noise levels ends."""
        return self._last_sigma()

    def _sigma_limits(self, count: int) -> tuple[float, float]:
        """The first and the last sigma of the spaced levels of a number of steps."""
        sigmas = self._sigmas(self._timestep_grid(count))
        return sigmas[0], sigmas[-1]


@dataclass(frozen=True, kw_only=True)
class SigmaLimits(SigmaSpacings):
    """Chooses the ends of the spaced levels.

    Attributes:
        sigma_min: last level of the spaced levels; None: as without the field.
        sigma_max: first level of the spaced levels; None: as without the field.
    """

    sigma_min: float | None = None
    sigma_max: float | None = None

    def _sigma_limits(self, count: int) -> tuple[float, float]:
        high, low = super()._sigma_limits(count)
        return (
            high if self.sigma_max is None else self.sigma_max,
            low if self.sigma_min is None else self.sigma_min,
        )

    def _faults(self) -> Sequence[str]:
        faults = list(super()._faults())
        for name, value in {"sigma_min": self.sigma_min, "sigma_max": self.sigma_max}.items():
            if value is not None and self._sigma_spacing() is None:
                faults.append(f"{name} needs {USE_SIGMAS}, got {value} with none")
            if value is not None and not value > 0:
                faults.append(f"{name} must be above 0, got {value}")
        if self.sigma_min and self.sigma_max and self.sigma_min >= self.sigma_max:
            faults.append(
                f"sigma_min must be below sigma_max, got {self.sigma_min} and {self.sigma_max}"
            )
        return faults


@dataclass(frozen=True, kw_only=True)
class FinalSigmas(FiniteSigmas):
    """Chooses where a run ends.

    Attributes:
        final_sigmas_type: end at sigma 0 or at the training schedule's first sigma.
    """

    final_sigmas_type: Literal["zero", "sigma_min"] = "zero"

    def _last_sigma(self) -> float:
        ends_at_data = self.final_sigmas_type == "zero"
        return 0.0 if ends_at_data else float(self.noise_schedule.noise_ratio[0])


@dataclass(frozen=True, kw_only=True)
class FlowSigmas(BetaScheduler):
    """Samples networks that were trained on straight paths, x = (1 - sigma) x0 + sigma eps.

    Attributes:
        use_flow_sigmas: levels of flow matching (arXiv:2210.02747) instead of those of the betas.
        flow_shift: moves them to more noise, s sigma / (1 + (s - 1) sigma) (arXiv:2403.03206,
            eq. 23), > 0.
    """

    use_flow_sigmas: bool = False
    flow_shift: float = 1.0

    def _faults(self) -> Sequence[str]:
        faults = list(super()._faults())
        if not self.flow_shift > 0:
            faults.append(f"flow_shift must be above 0, got {self.flow_shift}")
        if self.flow_shift != 1 and not self.use_flow_sigmas:
            faults.append(f"flow_shift needs use_flow_sigmas, got {self.flow_shift} without")
        if self.use_flow_sigmas and self.prediction_type == "v_prediction":
            faults.append(
                'use_flow_sigmas takes prediction_type "flow_prediction", "epsilon" or "sample", '
                "got 'v_prediction', which is defined where alpha^2 + sigma^2 = 1"
            )
        return faults

    def _flow_levels(self) -> bool:
        return self.use_flow_sigmas

    def _paired(
        self, timesteps: Float[np.ndarray, "n"], sigmas: Float[np.ndarray, "n"]
    ) -> list[Level]:
        if not self.use_flow_sigmas:
            return super()._paired(timesteps, sigmas)
        return [
            Level(float(t), float(1 - s), float(s)) for t, s in zip(timesteps, sigmas, strict=True)
        ]

    def _reading(self, alpha: float, sigma: float) -> Reading:
        found = super()._reading(alpha, sigma)
        return found._replace(in_scale=1.0) if self.use_flow_sigmas else found

    def _prior_scale(self, level: Level) -> float:
        """1 for flows, as diffusers' init_noise_sigma."""
        return 1.0 if self.use_flow_sigmas else super()._prior_scale(level)

    def _checked_timesteps(self, grid: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
        if self.use_flow_sigmas and grid[-1] == 0:
            raise ValueError("timesteps of a flow must be above 0, where sigma is 0, got 0")
        return super()._checked_timesteps(grid)

    def _checked_sigmas(self, grid: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
        if self.use_flow_sigmas and not grid[0] < 1:
            raise ValueError(f"sigmas of a flow must be below 1, where x is noise, got {grid[0]:g}")
        return super()._checked_sigmas(grid)

    def _training_levels(self) -> tuple[Float[np.ndarray, "T"], Float[np.ndarray, "T"]]:
        if not self.use_flow_sigmas:
            return super()._training_levels()
        sigmas = np.arange(self.num_train_timesteps) / self.num_train_timesteps
        return 1 - sigmas, sigmas

    def _velocity_weights(self) -> tuple[Float[np.ndarray, "T"], Float[np.ndarray, "T"]]:
        if not self.use_flow_sigmas:
            return super()._velocity_weights()
        ones = np.ones(self.num_train_timesteps)
        return ones, ones  # eps - x0 at every level


@dataclass(frozen=True, kw_only=True)
class DynamicShifting(Scheduler):
    """The fields of a flow shift that follows a picture's size.

    Attributes:
        use_dynamic_shifting: only False: the shift follows from each picture's size, in a pipeline
            that is not here. Set flow_shift to it.
        time_shift_type: only "exponential", the default; read with `use_dynamic_shifting` alone.
    """

    use_dynamic_shifting: bool = False
    time_shift_type: Literal["exponential", "linear"] = "exponential"

    def _faults(self) -> Sequence[str]:
        faults = list(super()._faults())
        if self.use_dynamic_shifting:
            faults.append(
                "use_dynamic_shifting is not supported: the shift follows from a picture's size; "
                "give it as flow_shift"
            )
        if self.time_shift_type != "exponential":
            faults.append(
                f"time_shift_type {self.time_shift_type!r} is not supported: it is read with "
                "use_dynamic_shifting alone"
            )
        return faults
