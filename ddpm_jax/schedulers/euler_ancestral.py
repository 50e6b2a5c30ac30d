r"""Ancestral sampling with Euler steps (Karras et al. 2022, arXiv:2206.00364, in Song et al.'s
variance-exploding form, arXiv:2011.13456, eq. 47).

From sigma to the next one down, sigma', Euler goes a little too far and noise brings it back:

    (1)  sigma_up^2   = sigma'^2 (sigma^2 - sigma'^2) / sigma^2
    (2)  sigma_down^2 = sigma'^2 - sigma_up^2 = sigma'^4 / sigma^2
    (3)  x <- x + (sigma_down - sigma) eps + sigma_up z
"""

from dataclasses import dataclass
from itertools import pairwise
from math import sqrt
from typing import Any, ClassVar

from ddpm_jax._typing import TimestepSpacing
from ddpm_jax.schedulers.fields import ZeroTerminalSNR
from ddpm_jax.schedulers.sigmas import SigmaScheduler
from ddpm_jax.tables.builder import Level
from ddpm_jax.tables.table import Table


@dataclass(frozen=True, kw_only=True)
class EulerAncestralDiscreteScheduler(SigmaScheduler, ZeroTerminalSNR):
    """Ancestral Euler sampling; stochastic, x0 is never clipped.

    Raises:
        ValueError: at construction, naming every field that is refused.
    """

    stochastic: ClassVar[bool] = True

    timestep_spacing: TimestepSpacing = "linspace"

    def _write(self, levels: list[Level], dtype: Any) -> Table:
        build = self._builder("x")
        for level, end in pairwise(levels):
            down, up = down_and_up(level.sigma, end.sigma)
            build.row(*level, x={"x": 1.0, "eps": down - level.sigma, "z": up})  # (3)
        return build.build(self._prior_scale(levels[0]), dtype, stochastic=True)


def down_and_up(sigma: float, end: float) -> tuple[float, float]:
    """sigma_down of (2) and sigma_up of (1), from a sigma to the next one down."""
    down = end**2 / sigma
    return down, sqrt(max(end**2 - down**2, 0.0))
