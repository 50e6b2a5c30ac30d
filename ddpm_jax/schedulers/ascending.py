r"""Schedulers whose runs go up, from images to noise.

`ddpm_jax.tables.inverted` turns a table around: its rows lead back to where the run down came from,
if the network answers the same. A scheduler that goes up is the same idea for methods that it does
not cover, with clipping or a history: it solves the probability-flow ODE from less to more noise.
In both a row cannot ask the network about the x that it leads to, and asks about the one it has.

Grids of one's own ascend then.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ddpm_jax.schedulers.base import GridOptions
from ddpm_jax.schedulers.betas import BetaScheduler
from ddpm_jax.tables.builder import Level


@dataclass(frozen=True, kw_only=True)
class Ascending(BetaScheduler):
    """Walks up: the levels of a run are those of the methods it overrides, in the other order.

    `timesteps` and `sigmas` are strictly ascending, and `start` leaves out the steps with the least
    noise.
    """

    ascends: ClassVar[bool] = True

    def _levels(self, num_inference_steps: int | None, grid: GridOptions) -> list[Level]:
        turned: GridOptions = {**grid}
        for name in ("timesteps", "sigmas"):
            if (given := grid.get(name)) is not None:
                turned[name] = _turned(type(self).__name__, name, given)
        levels = super()._levels(num_inference_steps, turned)[::-1]
        if levels[0].sigma == 0 and (fault := self._fault_at_the_data()):
            raise ValueError(
                f"a run cannot begin at the data, where x says nothing of eps: {fault}"
            )
        return levels

    def _fault_at_the_data(self) -> str | None:
        """Which field prevents eps from being read where sigma is 0, or None."""
        if self.prediction_type == "sample":
            return 'prediction_type "sample" does not say it either'
        return None


def _turned(scheduler: str, name: str, given: Any) -> Sequence[float]:
    """An ascending grid, descending; what is no list of numbers is left for the base to refuse."""
    values = np.asarray(given)
    if values.dtype.kind not in "iuf" or values.ndim != 1:
        return given
    if not np.all(np.diff(values) > 0):
        raise ValueError(
            f"{name} must be strictly ascending, for {scheduler} walks from images to noise; "
            f"got {values.tolist()}"
        )
    return values[::-1].tolist()
