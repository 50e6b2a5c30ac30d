r"""PNDM: pseudo numerical methods (Liu et al. 2022, arXiv:2202.09778).

`move` takes x from a level to another one along constant (x0, eps) [eq. 11]:

    (0)  move(x, e) = (alpha' / alpha) x + (sigma' - sigma alpha' / alpha) e,
         which is alpha' x0 + sigma' eps where e is the eps read at x

Pseudo linear multistep steps feed it a combination of past eps [eq. 12]:

    (1)  e = (55 e_t - 59 e_{t+1} + 37 e_{t+2} - 9 e_{t+3}) / 24

F-PNDM warms up with three pseudo Runge-Kutta steps, four evaluations each [eq. 13]:

    (2)  e1 at x;  e2 at move(x, e1, half);  e3 at move(x, e2, half);  e4 at move(x, e3, full)
    (3)  e = (e1 + 2 e2 + 2 e3 + e4) / 6

With `skip_prk_steps` the first step is Heun's (two evaluations, their mean from the first x), and
the orders of (1) grow: 2, 3, then 4. Every evaluation is converted to eps at its own level.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np

from ddpm_jax.schedulers.betas import SpacedTimesteps
from ddpm_jax.schedulers.fields import AlphaToOne
from ddpm_jax.tables.builder import Level, TableBuilder
from ddpm_jax.tables.table import Table

HISTORY = ("eps", "e1", "e2", "e3")
PUSH = {"e1": {"eps": 1.0}, "e2": {"e1": 1.0}, "e3": {"e2": 1.0}}
ADAMS = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),  # (1)
)
WARM_UP = 3  # Runge-Kutta steps before the history is full


@dataclass(frozen=True, kw_only=True)
class PNDMScheduler(AlphaToOne, SpacedTimesteps):
    """Pseudo linear multistep sampling; deterministic, x0 is never clipped.

    N steps take N + 9 evaluations, or N + 1 with `skip_prk_steps`. Grids of under four steps warm
    up with one Runge-Kutta step fewer than they have; with `start` the rest warms up again.

    Attributes:
        skip_prk_steps: start without the Runge-Kutta warm-up: N + 1 evaluations, not N + 9.
        set_alpha_to_one: end at the data (alpha 1); otherwise at the level of timestep 0.

    Raises:
        ValueError: at construction, naming every field that is refused.
    """

    order: ClassVar[int] = 2
    one_row_per_step: ClassVar[bool] = False

    skip_prk_steps: bool = False
    set_alpha_to_one: bool = False

    def _write(self, levels: list[Level], dtype: Any) -> Table:
        steps, prior = len(levels) - 1, self._prior_scale(levels[0])
        registers = ("x", "base", "e1", "e2", "e3") + (() if self.skip_prk_steps else ("sum",))
        build = self._builder(*registers)
        warm = 0 if self.skip_prk_steps else min(WARM_UP, steps - 1)
        for level, end in pairwise(levels[: warm + 1]):
            _runge_kutta(build, level, self._halfway(level, end), end)
        if self.skip_prk_steps and steps > 1:
            _heun(build, levels[0], levels[1])
            levels = levels[1:]
        order = 1 + (1 if self.skip_prk_steps and steps > 1 else warm)
        for level, end in pairwise(levels[warm:]):
            multistep(build, level, end, order)
            order = min(order + 1, len(ADAMS))
        return build.build(prior, dtype)

    def _halfway(self, level: Level, end: Level) -> Level:
        return self._levels_at(np.asarray([level.timestep - (level.timestep - end.timestep) // 2]))[
            0
        ]


def _slope(level: Level, end: Level) -> float:
    """How much of eps a move adds to (alpha' / alpha) x."""
    return end.sigma - level.sigma * end.alpha / level.alpha


def multistep(build: TableBuilder, level: Level, end: Level, order: int) -> None:
    """Equation (1), or its lower orders while the history fills, with registers e1, e2, e3.

    The first order needs no slope, which is infinite where alpha is 0.
    """
    slope = _slope(level, end) if order > 1 else 0.0
    past = {e: slope * c for e, c in zip(HISTORY, ADAMS[order - 1], strict=False)}
    past["eps"] += end.sigma - slope  # x0 and eps, not x: for v they do not cancel
    build.row(*level, x={"x0": end.alpha, **past}, **PUSH)


def _heun(build: TableBuilder, level: Level, end: Level) -> None:
    """A trial step, then the mean of both slopes from the first x; keeps the first slope."""
    half = _slope(level, end) / 2
    build.row(*level, x={"x0": end.alpha, "eps": end.sigma}, base={"x": 1.0}, **PUSH)
    build.row(*end, x={"base": end.alpha / level.alpha, "eps": half, "e1": half})


def _runge_kutta(build: TableBuilder, level: Level, half: Level, end: Level) -> None:
    """Equations (2) and (3); `sum` gathers the result while x visits the stages."""
    slope, to_half, to_end = _slope(level, end), half.alpha / level.alpha, end.alpha / level.alpha
    build.row(
        *level,
        x={"x0": half.alpha, "eps": half.sigma},
        base={"x": 1.0},
        sum={"x0": end.alpha, "eps": end.sigma - slope * 5 / 6},
        **PUSH,
    )
    third = {"sum": 1.0, "eps": slope / 3}
    build.row(*half, x={"base": to_half, "eps": _slope(level, half)}, sum=third)
    build.row(*half, x={"base": to_end, "eps": slope}, sum=third)
    build.row(*end, x={"sum": 1.0, "eps": slope / 6})
