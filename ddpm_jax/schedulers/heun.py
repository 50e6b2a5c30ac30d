r"""Heun's method on the probability-flow ODE (Karras et al. 2022, arXiv:2206.00364, Alg. 1).

From sigma to the next one down, sigma', with d = (x - x0) / sigma:

    (1)  x' = x + (sigma' - sigma) d
    (2)  x <- x + (sigma' - sigma) (d + d') / 2,   d' being d at (x', sigma')

The last step ends at sigma' = 0, where d' does not exist: it is (1) alone. N steps take 2 N - 1
evaluations.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

from ddpm_jax._typing import TimestepSpacing
from ddpm_jax.schedulers.fields import Clipping, SigmaSpacings
from ddpm_jax.schedulers.sigmas import SigmaScheduler
from ddpm_jax.tables.builder import Level, TableBuilder
from ddpm_jax.tables.table import Table

HEUN = ("x", "base", "d")
"""Registers: the sample, where the step began, and the slope there."""


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
        build = self._builder(*HEUN)
        for level, end in pairwise(levels):
            heun_rows(build, level, end, {"refined_eps": 1.0})
        return build.build(self._prior_scale(levels[0]), dtype)


def heun_rows(
    build: TableBuilder, level: Level, end: Level, slope: Mapping[str, float], noise: float = 0.0
) -> None:
    """One step by (1) and (2), or by (1) alone where it ends at sigma' = 0.

    Args:
        build: of the registers `HEUN`.
        level: where the step begins.
        end: where it ends.
        slope: d, in terms of the builder's sources.
        noise: standard deviation of the noise after the step; none at sigma' = 0.
    """
    step = end.sigma - level.sigma
    trial = {"x": 1.0} | {name: step * part for name, part in slope.items()}  # (1)
    if end.sigma == 0:
        build.row(*level, x=trial)
        return
    build.row(*level, x=trial, base={"x": 1.0}, d=slope)
    halves = {name: step / 2 * part for name, part in slope.items()}
    build.row(*end, x={"base": 1.0, "d": step / 2, **halves, "z": noise})  # (2)
