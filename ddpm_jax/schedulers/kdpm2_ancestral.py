r"""Ancestral sampling with steps of DPM-Solver-2, in the sigma of Karras et al. 2022
(arXiv:2206.00364), as in k-diffusion.

From sigma to the next one down, sigma', the step of `ddpm_jax.schedulers.kdpm2` goes to sigma_down
and noise of standard deviation sigma_up brings it back to sigma' (`ddpm_jax.schedulers.
euler_ancestral`, equations 1 and 2). The midpoint of sigma and sigma_down = sigma'^2 / sigma is
sigma' itself. N steps take 2 N - 1 evaluations; the last adds no noise.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

from ddpm_jax.schedulers.euler_ancestral import down_and_up
from ddpm_jax.schedulers.kdpm2 import KDPM2, RoundedMidpoints, kdpm2_rows
from ddpm_jax.tables.builder import Level
from ddpm_jax.tables.table import Table


@dataclass(frozen=True, kw_only=True)
class KDPM2AncestralDiscreteScheduler(RoundedMidpoints):
    """Ancestral DPM-Solver-2; stochastic, x0 is never clipped.

    Raises:
        ValueError: at construction, naming every field that is refused.
    """

    stochastic: ClassVar[bool] = True

    def _write(self, levels: list[Level], dtype: Any) -> Table:
        build, last = self._builder(*KDPM2), len(levels) - 2
        for i, (level, end) in enumerate(pairwise(levels)):
            down, up = down_and_up(level.sigma, end.sigma) if i < last else (end.sigma, 0.0)
            kdpm2_rows(build, self._midpoint, level, down, up)
        return build.build(self._prior_scale(levels[0]), dtype, stochastic=True)
