r"""Heun's method on the straight paths of flow matching (arXiv:2210.02747).

The steps are (1) and (2) of `ddpm_jax.schedulers.heun`, d being the network's velocity eps - x0.
N steps take 2 N - 1 evaluations.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

from ddpm_jax.schedulers.flow_match import FlowMatchScheduler
from ddpm_jax.schedulers.heun import HEUN, heun_rows
from ddpm_jax.tables.builder import Level
from ddpm_jax.tables.table import Table


@dataclass(frozen=True, kw_only=True)
class FlowMatchHeunDiscreteScheduler(FlowMatchScheduler):
    """Heun's method; deterministic, of second order.

    Raises:
        ValueError: at construction, naming every field that is refused.
    """

    order: ClassVar[int] = 2
    one_row_per_step: ClassVar[bool] = False

    def _write(self, levels: list[Level], dtype: Any) -> Table:
        build = self._builder(*HEUN)
        for level, end in pairwise(levels):
            heun_rows(build, level, end, {"eps": 1.0, "x0": -1.0})
        return build.build(self._prior_scale(levels[0]), dtype)
