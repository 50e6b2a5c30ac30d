"""Groups of fields that diffusers gives to some schedulers, each with its own faults.

A group adds fields and no other defaults: a scheduler lists the groups that it has before its
base, and states defaults that differ from the base's itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ddpm_jax._typing import Timesteps
from ddpm_jax.schedulers.base import Scheduler
from ddpm_jax.schedulers.sigmas import SigmaScheduler, exploding
from ddpm_jax.tables.builder import Level
from ddpm_jax.tables.refine import Clip, DynamicThreshold, Refine
from ddpm_jax.tables.schedules import NoiseSchedule
from ddpm_jax.tables.spacing import SigmaSpacing, sigma_grid


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
class ZeroTerminalSNR(Scheduler):
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
class SpacedSigmas(SigmaScheduler):
    """Chooses noise levels by their sigma; their timesteps follow.

    Attributes:
        use_karras_sigmas: noise levels by arXiv:2206.00364, eq. 5.
        use_exponential_sigmas: noise levels in even steps of log sigma.
        use_beta_sigmas: noise levels at quantiles of Beta(0.6, 0.6), arXiv:2407.12173.
    """

    use_karras_sigmas: bool = False
    use_exponential_sigmas: bool = False
    use_beta_sigmas: bool = False

    def _faults(self) -> Sequence[str]:
        faults = list(super()._faults())
        flags = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")
        chosen = [flag for flag in flags if getattr(self, flag)]
        if len(chosen) > 1:
            faults.append(f"only one of {', '.join(flags)} may be set, got {', '.join(chosen)}")
        return faults

    def _sigma_spacing(self) -> SigmaSpacing | None:
        if self.use_karras_sigmas:
            return "karras"
        if self.use_exponential_sigmas:
            return "exponential"
        return "beta" if self.use_beta_sigmas else None

    def _chosen_levels(self) -> str | None:
        """What chooses the noise levels, if custom timesteps cannot."""
        return self._sigma_spacing()

    def _timesteps(
        self, num_inference_steps: int | None, timesteps: Timesteps | None
    ) -> Float[np.ndarray, "n"]:
        chosen = self._chosen_levels()
        if timesteps is not None and chosen:
            raise ValueError(
                f"timesteps cannot be given to a scheduler with {chosen} noise levels, "
                "which follow from num_inference_steps"
            )
        return super()._timesteps(num_inference_steps, timesteps)

    def _levels_to_end(self, timesteps: Float[np.ndarray, "n"]) -> list[Level]:
        count, sigmas = len(timesteps), self._sigmas(timesteps)
        spacing = self._sigma_spacing()
        if spacing is not None:
            sigmas = sigma_grid(spacing, *self._sigma_limits(sigmas), count)
            timesteps = self._timestep_of(sigmas)
        sigmas = np.append(sigmas, self._last_sigma())[: count + 1]
        return exploding(np.append(timesteps, -1.0), sigmas)

    def _sigma_limits(self, sigmas: Float[np.ndarray, "n"]) -> tuple[float, float]:
        """The first and the last sigma of the spaced levels."""
        return sigmas[0], sigmas[-1]

    def _last_sigma(self) -> float:
        """Where a run ends."""
        return 0.0
