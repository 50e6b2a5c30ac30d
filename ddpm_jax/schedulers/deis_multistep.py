r"""DEIS with a history (Zhang and Chen 2023, arXiv:2204.13902).

In rho = sigma / alpha the probability flow is d(x / alpha) / d rho = eps. "logrho" takes eps for
the polynomial in log rho through its values here and at the last levels, with l_j of Lagrange:

    (1)  x <- alpha' (x / alpha + sum_j eps_j (integral from rho to rho' of l_j(log r) dr))

log rho is -lambda, so this is the predictor of `ddpm_jax.schedulers.adams` for eps, without a
corrector. `solver_order` values determine a step of that order.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from ddpm_jax.schedulers.adams import AdamsMethod, Orders
from ddpm_jax.schedulers.dpmsolver_multistep import SHORT
from ddpm_jax.schedulers.exponential import Form, phis
from ddpm_jax.schedulers.fields import DynamicShifting, SolverOrder
from ddpm_jax.tables.builder import Level

FOREIGN: Mapping[str, Mapping[Any, str]] = {
    "algorithm_type": dict.fromkeys(("dpmsolver", "dpmsolver++"), "deis"),
    "solver_type": dict.fromkeys(("midpoint", "heun", "bh1", "bh2"), "logrho"),
}


@dataclass(frozen=True, kw_only=True)
class DEISMultistepScheduler(SolverOrder, AdamsMethod, DynamicShifting):
    """DEIS; deterministic. N steps take N evaluations.

    A run ends at the training schedule's first level. Where the noise levels are chosen, not their
    timesteps, it stays at the last one, whose evaluation has no effect. With `start` the rest
    begins with no past, as a whole run does.

    Attributes:
        solver_order: highest order of a step, 1 to 3; the first steps have lower ones.
        algorithm_type: "deis". DPM-Solver's "dpmsolver" and "dpmsolver++" become it.
        solver_type: "logrho". Other solvers' "midpoint", "heun", "bh1" and "bh2" become it.
        lower_order_final: lower the orders of the last two steps in runs of under 15.

    Raises:
        ValueError: at construction, naming every field that is refused.
    """

    algorithm_type: Literal["deis", "dpmsolver", "dpmsolver++"] = "deis"
    solver_type: Literal["logrho", "midpoint", "heun", "bh1", "bh2"] = "logrho"

    _foreign: ClassVar[Mapping[str, Mapping[Any, str]]] = FOREIGN

    def _form(self, level: Level) -> Form:
        return Form(of_x0=False, direction="refined_eps" if self.thresholding else "eps")

    def _history(self) -> int:
        return self.solver_order - 1

    def _orders(self, step: int, steps: int, known: int) -> Orders:
        lowers = self.lower_order_final and steps < SHORT
        return Orders(min(known, steps - step) if lowers else known)

    def _slope(self, u: float) -> float:
        return phis(u, 2)[1]
