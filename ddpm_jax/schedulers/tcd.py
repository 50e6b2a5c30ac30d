r"""Trajectory consistency distillation (Zheng et al. 2024, arXiv:2402.19159).

The network reaches any level (alpha_s, sigma_s) below its own along constant (x0, eps), and noise
leads from there back up to the next level of the run, (alpha', sigma') [strategic stochastic
sampling]:

    (1)  s = floor((1 - eta) t'),   t' the next timestep
    (2)  x <- (alpha' / alpha_s) (alpha_s x0 + sigma_s eps) + sqrt(1 - (alpha' / alpha_s)^2) z

eta, the paper's gamma, is 0 for a deterministic run, which is DDIM's, and 1 for one that starts
again from the data at every step. The last step ends at timestep 0, without noise.
"""

from dataclasses import dataclass
from itertools import pairwise
from math import floor, sqrt
from typing import Any, ClassVar, Unpack

import numpy as np

from ddpm_jax._typing import is_number
from ddpm_jax.schedulers.base import GridOptions
from ddpm_jax.schedulers.distilled import Distilled
from ddpm_jax.tables.builder import Level, beta_between
from ddpm_jax.tables.refine import Refine
from ddpm_jax.tables.table import Table

ETA = 0.3
"""diffusers' default, and the paper's choice for few steps."""


@dataclass(frozen=True, kw_only=True)
class TCDScheduler(Distilled):
    """Trajectory consistency sampling of distilled networks; x0 is never clipped.

    Attributes:
        timestep_spacing: not read.
        steps_offset: not read.
        timestep_scaling: not read.
        clip_sample: not read.
        clip_sample_range: not read.
        thresholding: not read.
        dynamic_thresholding_ratio: not read.
        sample_max_value: not read.

    A field that is not read keeps what a config of another scheduler has in it; given directly, a
    value other than the default is refused.

    Raises:
        ValueError: at construction, naming every field that is refused.
    """

    order: ClassVar[int] = 0  # but with eta 0: DDIM's
    unread: ClassVar[frozenset[str]] = Distilled.unread | {
        *("timestep_scaling", "clip_sample", "clip_sample_range"),
        *("thresholding", "dynamic_thresholding_ratio", "sample_max_value"),
    }

    def table(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        num_inference_steps: int | None = None,
        *,
        eta: float = ETA,
        **grid: Unpack[GridOptions],
    ) -> Table:
        """The run as a table; one row per step.

        Args:
            num_inference_steps: number of steps, in 1..original_inference_steps.
            eta: how far a step goes beyond the next level before noise leads back up, in [0, 1],
                equation (1); exactly 0 needs no keys.
            **grid: timesteps, sigmas, start, dtype; see `GridOptions`.

        Raises:
            ValueError: as for any scheduler, or a bad eta.
        """
        if not is_number(eta) or not 0 <= eta <= 1:
            raise ValueError(f"eta must be a number in [0, 1], got {eta!r}")
        return self._write(*self._run(num_inference_steps, grid), eta)

    def _write(self, levels: list[Level], dtype: Any, eta: float = ETA) -> Table:
        build, last = self._builder("x"), len(levels) - 2
        for i, (level, end) in enumerate(pairwise(levels)):
            below = self._below(end, eta) if i < last else end
            kept = end.alpha / below.alpha
            std = sqrt(max(beta_between(end, below), 0.0))
            x = {"x0": end.alpha, "eps": kept * below.sigma, "z": std}  # (2)
            build.row(*level, x=x)
        return build.build(self._prior_scale(levels[0]), dtype, stochastic=eta > 0)

    def _below(self, end: Level, eta: float) -> Level:
        """The level of s in (1); `end` itself if s is not below, as where eta is 0."""
        share = (1 - eta) * end.timestep
        if end.timestep == floor(end.timestep):  # others are those of given sigmas
            share = floor(round(share, 9))  # 0.7 * 90 is 62.99999999999999
        below = self._levels_at(np.array([float(share)]))[0]
        return below if below.sigma < end.sigma else end

    def _refine(self) -> Refine | None:
        return None

    def _end(self) -> Level:
        return self._levels_at(np.zeros(1))[0]
