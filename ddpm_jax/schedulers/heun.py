r"""Heun's method on the probability-flow ODE (Karras et al. 2022, arXiv:2206.00364, Alg. 1).

From sigma to the next one down, sigma', with d = (x - x0) / sigma:

    (1)  x' = x + (sigma' - sigma) d
    (2)  x <- x + (sigma' - sigma) (d + d') / 2,   d' being d at (x', sigma')

The last step ends at sigma' = 0, where d' does not exist: it is (1) alone. N steps take 2 N - 1
evaluations.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

from ddpm_jax._typing import TimestepSpacing
from ddpm_jax.schedulers.fields import Clipping, SigmaSpacings
from ddpm_jax.schedulers.sigmas import SigmaScheduler
from ddpm_jax.tables.builder import Level
from ddpm_jax.tables.table import Table


@dataclass(frozen=True, kw_only=True)
class HeunDiscreteScheduler(SigmaSpacings, SigmaScheduler, Clipping):
    """Heun's method; deterministic, of second order.

    Raises:
        ValueError: at construction, naming every field that is refused.
    """

    order: ClassVar[int] = 2
    one_row_per_step: ClassVar[bool] = False

    beta_start: float = 0.00085
    beta_end: float = 0.012
    timestep_spacing: TimestepSpacing = "linspace"
    clip_sample: bool = False

    def _write(self, levels: list[Level], dtype: Any) -> Table:
        build = self._builder("x", "base", "d")
        for level, end in pairwise(levels):
            step = end.sigma - level.sigma
            if end.sigma == 0:
                build.row(*level, x={"x": 1.0, "refined_eps": step})  # (1)
                continue
            trial = {"x": 1.0, "refined_eps": step}  # (1)
            build.row(*level, x=trial, base={"x": 1.0}, d={"refined_eps": 1.0})
            build.row(*end, x={"base": 1.0, "d": step / 2, "refined_eps": step / 2})  # (2)
        return build.build(self._prior_scale(levels[0]), dtype)
