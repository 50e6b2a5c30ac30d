r"""DPM-Solver in blocks of steps (Lu et al. 2022, arXiv:2206.00927, Algorithms 1 and 2).

`ddpm_jax.schedulers.dpmsolver` has the equations. A block is `solver_order` steps of the grid, from
a level (alpha_0, sigma_0). Its k-th row has order k: it goes from the block's beginning to the next
level, with slopes from m at the k levels of the block so far. The rows are the stages of a method
that begins anew in each block, with m_0 and x_0 from its first level, where (1) of that module is

    (1)  x <- (d sigma' / sigma_0) x_0 + (alpha' - d sigma' alpha_0 / sigma_0) m_0,   m being x0
         x <- (alpha' / alpha_0) x_0 + (d sigma' - alpha' sigma_0 / alpha_0) m_0,     m being eps

With solver_type "midpoint" a step of third order takes D1 from the first and the last level and has
no D2, as the paper's DPM-Solver-3 with its nodes at 1/3 and 2/3.

Each row of "sde-dpmsolver++" draws noise of its own for the whole way from the block's beginning,
as diffusers has it. That form is in neither paper, and its variance is of first order for any
`solver_order`.
"""

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, ClassVar, Literal

from ddpm_jax.schedulers.dpmsolver import (
    DenoisingDPMSolver,
    DPMForm,
    both_slopes,
    first_slope,
)
from ddpm_jax.schedulers.exponential import Mixture, log_snr
from ddpm_jax.tables.builder import Level
from ddpm_jax.tables.table import Table

REGISTERS = ("x", "x_0", "m_0", "m_1")


@dataclass(frozen=True, kw_only=True)
class DPMSolverSinglestepScheduler(DenoisingDPMSolver):
    """DPM-Solver and DPM-Solver++ in blocks; deterministic, or stochastic as "sde-dpmsolver++".

    N steps take N evaluations. A block that the end or `start` cuts has fewer rows.

    Attributes:
        lower_order_final: where the last block is a whole one, make its last step one of first
            order. A last step to sigma 0 is one in any case.

    Raises:
        ValueError: at construction, naming every field that is refused.
    """

    order: ClassVar[int] = 2
    one_row_per_step: ClassVar[bool] = False  # the rows of a block depend on each other

    algorithm_type: Literal["dpmsolver", "dpmsolver++", "sde-dpmsolver++", "deis"] = "dpmsolver++"
    lower_order_final: bool = False

    def _write(self, levels: list[Level], dtype: Any, left_out: int = 0) -> Table:
        form, size, steps = self._form(), self.solver_order, len(levels) - 1 + left_out
        build = self._builder(*REGISTERS[: size + 1 if size > 1 else 1])
        ends_low = levels[-1].sigma == 0 or (self.lower_order_final and steps % size == 0)
        block: list[Level] = []  # the levels since its beginning that differ
        for i, (level, end) in enumerate(pairwise(levels), start=left_out):
            if i % size == 0 or (i == steps - 1 and ends_low):
                block = []
            if not block or level[1:] != block[-1][1:]:
                block.append(level)
            if end[1:] == block[0][1:]:  # no step since the beginning
                build.row(*level)
                continue
            here = form if i < steps - 1 else replace(form, tau=0.0)
            keeps: dict[str, Mixture] = {}
            if len(block) == 1 < size:
                keeps = {"x_0": {"x": 1.0}, "m_0": {form.integrand: 1.0}}
            elif len(block) == 2 < size:
                keeps = {"m_1": {form.integrand: 1.0}}
            build.row(*level, x=_step(here, block, end), **keeps)
        return build.build(self._prior_scale(levels[0]), dtype, stochastic=form.noisy)


def _step(form: DPMForm, block: list[Level], end: Level) -> Mixture:
    """A step from the beginning of a block to `end`, of the order of the block's levels so far."""
    first, *others = block
    h = log_snr(end) - log_snr(first)
    x = form.first_order(end, h)
    if not others:
        return x
    signal, noise = x.pop("x0"), x.pop(form.direction)
    if form.of_x0:
        x |= {"x_0": noise / first.sigma, "m_0": signal - noise * first.alpha / first.sigma}  # (1)
    else:
        x |= {"x_0": signal / first.alpha, "m_0": noise - signal * first.sigma / first.alpha}  # (1)
    nodes = [(log_snr(level) - log_snr(first)) / h for level in others]
    second, along, across = form.weights(end, h)
    if len(nodes) == 1 or form.midpoint:
        start, here = first_slope(nodes[-1])
        weight = second if len(nodes) == 1 else along
        return x | {"m_0": x["m_0"] + weight * start, form.integrand: weight * here}
    slope, curve = both_slopes(*nodes)
    start, middle, here = (along * a + across * b for a, b in zip(slope, curve, strict=True))
    return x | {"m_0": x["m_0"] + start, "m_1": middle, form.integrand: here}
