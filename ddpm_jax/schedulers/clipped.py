"""Fields of the schedulers that clip or threshold the predicted x0 (DDPM and DDIM)."""

from collections.abc import Sequence
from dataclasses import dataclass

from ddpm_jax.schedulers.base import Scheduler
from ddpm_jax.tables.refine import Clip, DynamicThreshold, Refine


@dataclass(frozen=True, kw_only=True)
class ClippedScheduler(Scheduler):
    """Base of the schedulers with a refined x0.

    Attributes:
        clip_sample: clip the predicted x0.
        clip_sample_range: to plus and minus this, > 0.
        thresholding: threshold dynamically instead (arXiv:2205.11487); goes before clip_sample.
        dynamic_thresholding_ratio: the quantile, in [0, 1].
        sample_max_value: the largest threshold, > 0.
        rescale_betas_zero_snr: leave no signal at the last timestep (arXiv:2305.08891).
    """

    clip_sample: bool = True
    clip_sample_range: float = 1.0
    thresholding: bool = False
    dynamic_thresholding_ratio: float = 0.995
    sample_max_value: float = 1.0
    rescale_betas_zero_snr: bool = False

    def _faults(self) -> Sequence[str]:
        faults = list(super()._faults())
        if not self.clip_sample_range > 0:
            faults.append(f"clip_sample_range must be above 0, got {self.clip_sample_range}")
        if not 0 <= self.dynamic_thresholding_ratio <= 1:
            faults.append(
                "dynamic_thresholding_ratio must lie in [0, 1], "
                f"got {self.dynamic_thresholding_ratio}"
            )
        if not self.sample_max_value > 0:
            faults.append(f"sample_max_value must be above 0, got {self.sample_max_value}")
        return faults

    def _refine(self) -> Refine | None:
        if self.thresholding:
            return DynamicThreshold(
                ratio=self.dynamic_thresholding_ratio, max_value=self.sample_max_value
            )
        return Clip(limit=self.clip_sample_range) if self.clip_sample else None
