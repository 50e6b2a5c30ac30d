"""What the schedulers of distilled networks share: their fields, and the timesteps of a run.

A network is distilled at K = original_inference_steps of the T timesteps of training,

    (1)  t_i = i floor(T / K) - 1,   i = 1, ..., K

and a run of N steps takes N of these, from the last:

    (2)  t_{K - floor(n K / N)},   n = 0, ..., N-1

Reference: Luo et al. 2023, arXiv:2310.04378, section 4.3 (the skipping steps), as in its code.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from ddpm_jax.schedulers.betas import SpacedTimesteps
from ddpm_jax.schedulers.fields import Clipping, Thresholding, ZeroTerminalSNR
from ddpm_jax.tables.schedules import BetaSchedule


@dataclass(frozen=True, kw_only=True)
class Distilled(Thresholding, Clipping, ZeroTerminalSNR, SpacedTimesteps):
    """Base of the schedulers for distilled networks.

    Attributes:
        original_inference_steps: K of (1), in 1..num_train_timesteps; the most steps of a run.
        set_alpha_to_one: not read.
        timestep_scaling: of the boundary condition, > 0.
    """

    unread: ClassVar[frozenset[str]] = frozenset(
        {"timestep_spacing", "steps_offset", "set_alpha_to_one"}
    )

    beta_start: float = 0.00085
    beta_end: float = 0.012
    beta_schedule: BetaSchedule = "scaled_linear"
    clip_sample: bool = False
    original_inference_steps: int = 50
    set_alpha_to_one: bool = True
    timestep_scaling: float = 10.0

    def _faults(self) -> Sequence[str]:
        faults, original = list(super()._faults()), self.original_inference_steps
        if not 1 <= original <= self.num_train_timesteps:
            faults.append(
                "original_inference_steps must lie in 1..num_train_timesteps = "
                f"{self.num_train_timesteps}, got {original}"
            )
        if not self.timestep_scaling > 0:
            faults.append(f"timestep_scaling must be above 0, got {self.timestep_scaling}")
        return faults

    def _timestep_grid(self, count: int) -> Float[np.ndarray, "n"]:
        original = self.original_inference_steps
        if count > original:
            raise ValueError(
                "num_inference_steps must be at most original_inference_steps = "
                f"{original}, the timesteps of which a run takes some; got {count}"
            )
        trained = np.arange(1, original + 1) * (self.num_train_timesteps // original) - 1  # (1)
        # in floating point, as diffusers: for some N a place is one earlier than in (2)
        places = np.floor(np.linspace(0, original, count, endpoint=False)).astype(int)
        return trained[::-1][places].astype(np.float64)  # (2)
