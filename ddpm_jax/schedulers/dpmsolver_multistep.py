r"""DPM-Solver with a history (Lu et al. 2022, arXiv:2211.01095, Algorithm 2).

`ddpm_jax.schedulers.dpmsolver` has the equations. A step takes D1 and D2 from m here and at the
last one or two levels. The first rows have lower orders. The last row adds no noise: it is that of
the deterministic form.

No paper has the third order. As in the authors' code, k-diffusion and diffusers it is

    (1)  x <- (1) - s u phi_2(u) D1 - s u phi_3(u) D2 / 2

where the 2 is one too many: its slope of convergence is 2, with an error under a quarter of that of
`solver_order` 2.
"""

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, ClassVar, NamedTuple

import numpy as np
from jaxtyping import Float

from ddpm_jax._typing import TimestepSpacing
from ddpm_jax.schedulers.betas import SpacedTimesteps
from ddpm_jax.schedulers.dpmsolver import (
    DenoisingDPMSolver,
    DPMForm,
    DPMSolver,
    both_slopes,
    first_slope,
)
from ddpm_jax.schedulers.exponential import Mixture, log_snr
from ddpm_jax.schedulers.fields import ZeroTerminalSNR
from ddpm_jax.tables.builder import Level, TableBuilder
from ddpm_jax.tables.spacing import SigmaSpacing
from ddpm_jax.tables.table import Table

PAST = ("m_1", "m_2")
SHORT = 15  # runs of fewer steps lower the orders of the last two, as in the authors' code


class Orders(NamedTuple):
    """The orders of a run's steps.

    Attributes:
        highest: once there are enough steps before.
        lowers: the last two are lowered.
        euler_at_final: the last one is 1.
    """

    highest: int
    lowers: bool
    euler_at_final: bool


@dataclass(frozen=True, kw_only=True)
class MultistepDPMSolver(DPMSolver, SpacedTimesteps):
    """Base of the multistep solvers, to the data and away from them.

    Attributes:
        lower_order_final: lower the orders of the last two steps in runs of under 15.
        euler_at_final: make the last step one of first order.
    """

    order: ClassVar[int] = 2
    one_row_per_step: ClassVar[bool] = False  # one it is, but with `start` the rows are others

    timestep_spacing: TimestepSpacing = "linspace"
    euler_at_final: bool = False

    def _write(self, levels: list[Level], dtype: Any, left_out: int = 0) -> Table:
        form, build = self._form(), self._builder("x", *PAST[: self.solver_order - 1])
        lowers = self.lower_order_final and len(levels) - 1 + left_out < SHORT
        orders = Orders(self.solver_order, lowers, self.euler_at_final)
        multistep_rows(build, form, levels, orders)
        return build.build(self._prior_scale(levels[0]), dtype, stochastic=form.noisy)


def multistep_rows(build: TableBuilder, form: DPMForm, levels: list[Level], orders: Orders) -> None:
    """The rows of a run; `build` has a register of PAST for each order above 1."""
    past = PAST[: orders.highest - 1]
    push = {new: {old: 1.0} for old, new in pairwise([form.integrand, *past])}
    visited: list[float] = []  # lambda, here and of what the registers hold
    for left, (level, end) in zip(range(len(levels) - 1, 0, -1), pairwise(levels), strict=True):
        if level[1:] == end[1:]:  # a level twice: the slopes need distinct ones
            build.row(*level)
            continue
        visited = [log_snr(level), *visited][: orders.highest]
        order = min(len(visited), left) if orders.lowers else len(visited)
        if left == 1:
            form = replace(form, tau=0.0)
            order = 1 if orders.euler_at_final or end.sigma == 0 else order
        build.row(*level, x=_step(form, end, visited[:order]), **push)


def _step(form: DPMForm, end: Level, visited: list[float]) -> Mixture:
    """A step of the order of `visited`, lambda here and at the levels before."""
    here, *before = visited
    h = log_snr(end) - here
    x = form.first_order(end, h)
    if before:
        nodes = [(there - here) / h for there in before]
        second, along, across = form.weights(end, h)
        if len(nodes) == 1:
            weights = [second * w for w in first_slope(*nodes)]
        else:
            slope, curve = both_slopes(*nodes)
            weights = [along * a + across * b / 2 for a, b in zip(slope, curve, strict=True)]  # (1)
        for source, weight in zip((form.integrand, *PAST), weights, strict=False):
            x[source] = x.get(source, 0.0) + weight
    return x


@dataclass(frozen=True, kw_only=True)
class DPMSolverMultistepScheduler(DenoisingDPMSolver, MultistepDPMSolver, ZeroTerminalSNR):
    """DPM-Solver and DPM-Solver++ with a history; deterministic, or stochastic in the "sde" forms.

    N steps take N evaluations. With `start` the rest begins with no past, as a whole run does.

    Attributes:
        use_lu_lambdas: noise levels in even steps of lambda, at timesteps rounded to whole ones
            (arXiv:2206.00927, section 3.3).

    Raises:
        ValueError: at construction, naming every field that is refused.
    """

    use_lu_lambdas: bool = False

    def _flags(self) -> list[str]:
        return [*super()._flags(), *(["use_lu_lambdas"] if self.use_lu_lambdas else [])]

    def _sigma_spacing(self) -> SigmaSpacing | None:
        return "exponential" if self.use_lu_lambdas else super()._sigma_spacing()

    def _told(self, sigmas: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
        rounds = self.use_karras_sigmas or self.use_lu_lambdas
        told = self._timestep_of(sigmas)
        return np.round(told) if rounds and self.beta_schedule != "squaredcos_cap_v2" else told
