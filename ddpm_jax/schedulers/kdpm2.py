r"""DPM-Solver-2 on the probability-flow ODE, in the sigma of Karras et al. 2022 (arXiv:2206.00364).

From sigma to the next one down, sigma', by way of the midpoint in log sigma, as in k-diffusion.
This is Lu et al. 2022 (arXiv:2206.00927, Alg. 1) where alpha is 1. With d = (x - x0) / sigma:

    (1)  sigma_m = sqrt(sigma sigma')
    (2)  x_m = x + (sigma_m - sigma) d
    (3)  x <- x + (sigma' - sigma) d_m,   d_m being d at (x_m, sigma_m)

A step to sigma' = 0 has no midpoint: it is Euler's, x <- x0. N steps take 2 N - 1 evaluations.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from ddpm_jax._typing import TimestepSpacing
from ddpm_jax.schedulers.fields import SigmaSpacings
from ddpm_jax.schedulers.sigmas import SigmaScheduler
from ddpm_jax.tables.builder import Level, TableBuilder
from ddpm_jax.tables.table import Table

KDPM2 = ("x", "base")
"""Registers: the sample, and where the step began."""


@dataclass(frozen=True, kw_only=True)
class MidpointScheduler(SigmaSpacings, SigmaScheduler):
    """Base of the schedulers that evaluate the network at midpoints in log sigma."""

    order: ClassVar[int] = 2
    one_row_per_step: ClassVar[bool] = False

    beta_start: float = 0.00085
    beta_end: float = 0.012
    timestep_spacing: TimestepSpacing = "linspace"

    def _midpoint(self, level: Level, sigma: float) -> Level:
        """Halfway from a level to a lower sigma, equation (1)."""
        middle = sqrt(level.sigma * sigma)
        return Level(float(self._timestep_of(np.array([middle]))[0]), 1.0, middle)


@dataclass(frozen=True, kw_only=True)
class RoundedMidpoints(MidpointScheduler):
    """Rounds the timesteps of karras sigmas, though not of their midpoints, as in diffusers."""

    def _told(self, sigmas: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
        told = super()._told(sigmas)
        return np.round(told) if self.use_karras_sigmas else told


@dataclass(frozen=True, kw_only=True)
class KDPM2DiscreteScheduler(RoundedMidpoints):
    """DPM-Solver-2; deterministic, of second order, x0 is never clipped.

    Raises:
        ValueError: at construction, naming every field that is refused.
    """

    def _write(self, levels: list[Level], dtype: Any) -> Table:
        build = self._builder(*KDPM2)
        for level, end in pairwise(levels):
            kdpm2_rows(build, self._midpoint, level, end.sigma)
        return build.build(self._prior_scale(levels[0]), dtype)


def kdpm2_rows(
    build: TableBuilder,
    midpoint: Callable[[Level, float], Level],
    level: Level,
    sigma: float,
    noise: float = 0.0,
) -> None:
    """One step by (2) and (3), or Euler's to 0.

    Args:
        build: of the registers `KDPM2`.
        midpoint: gives (1), from a level and a lower sigma.
        level: where the step begins.
        sigma: where it ends, before the noise.
        noise: standard deviation of the noise after the step; none at 0.
    """
    if sigma == 0:
        build.row(*level, x={"x0": 1.0})
        return
    middle = midpoint(level, sigma)
    build.row(*level, x={"x0": 1.0, "eps": middle.sigma}, base={"x": 1.0})  # (2)
    build.row(*middle, x={"base": 1.0, "eps": sigma - level.sigma, "z": noise})  # (3)
