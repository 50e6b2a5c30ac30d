"""DPM-Solver++ with a history, for preconditioned networks (arXiv:2211.01095, arXiv:2206.00364).

The levels and the network's reading are those of `ddpm_jax.schedulers.edm`, the steps those of
`ddpm_jax.schedulers.dpmsolver_multistep` at alpha = 1.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from ddpm_jax.schedulers.dpmsolver import FOREIGN, DPMForm, SolverType
from ddpm_jax.schedulers.dpmsolver_multistep import PAST, SHORT, Orders, multistep_rows
from ddpm_jax.schedulers.edm import EDMScheduler
from ddpm_jax.schedulers.exponential import Counted
from ddpm_jax.schedulers.fields import SolverOrder, Thresholding
from ddpm_jax.tables.builder import Level
from ddpm_jax.tables.table import Table


@dataclass(frozen=True, kw_only=True)
class EDMDPMSolverMultistepScheduler(SolverOrder, Thresholding, EDMScheduler, Counted):
    """DPM-Solver++ with a history; deterministic, or stochastic in the "sde" form.

    N steps take N evaluations. With `start` the rest begins with no past, as a whole run does.

    Attributes:
        solver_order: highest order of a step, 1 to 3; the first steps have lower ones.
        algorithm_type: with new noise in each step or without. Another solver's "deis" becomes
            "dpmsolver++".
        solver_type: of the steps of second order. Other solvers' "logrho", "bh1" and "bh2" become
            "midpoint".
        lower_order_final: lower the orders of the last two steps in runs of under 15.
        euler_at_final: make the last step one of first order.

    Raises:
        ValueError: at construction, naming every field that is refused.
    """

    order: ClassVar[int] = 2
    one_row_per_step: ClassVar[bool] = False  # one it is, but with `start` the rows are others

    algorithm_type: Literal["dpmsolver++", "sde-dpmsolver++", "deis"] = "dpmsolver++"
    solver_type: SolverType = "midpoint"
    lower_order_final: bool = True
    euler_at_final: bool = False

    _foreign: ClassVar[Mapping[str, Mapping[Any, str]]] = FOREIGN

    def _write(self, levels: list[Level], dtype: Any, left_out: int = 0) -> Table:
        form = DPMForm(
            of_x0=True,
            direction="refined_eps" if self.thresholding else "eps",
            tau=1.0 if self.algorithm_type == "sde-dpmsolver++" else 0.0,
            midpoint=self.solver_type == "midpoint",
        )
        build = self._builder("x", *PAST[: self.solver_order - 1])
        lowers = self.lower_order_final and len(levels) - 1 + left_out < SHORT
        multistep_rows(build, form, levels, Orders(self.solver_order, lowers, self.euler_at_final))
        return build.build(self._prior_scale(levels[0]), dtype, stochastic=form.noisy)
