r"""What the DPM-Solvers share: their fields, and their steps in lambda = log(alpha / sigma).

A step goes from a level to the next one, (alpha', sigma'), over h = lambda' - lambda. Its part of
first order, (3) of `ddpm_jax.schedulers.exponential` with tau = 1 in the "sde" forms and 0 in the
others, is

    (1)  x <- alpha' x0 + d sigma' eps + n sigma' z
         dpmsolver, dpmsolver++:  d = 1,         n = 0
         sde-dpmsolver++:         d = e^-h,      n^2 = 1 - e^-2h
         sde-dpmsolver:           d = 2 - e^h,   n^2 = e^2h - 1

Higher orders add the slopes of m, which is x0 in the "++" forms and eps in the others. With D1 and
D2 the first and the second derivative of m in units of h, from its values at two or three levels,

    (2)  x <- (1) - s u phi_2(u) D1 - s u phi_3(u) D2
         dpmsolver++:  s = alpha', u = -h     sde-dpmsolver++:  s = alpha',   u = -2h
         dpmsolver:    s = sigma', u = h      sde-dpmsolver:    s = 2 sigma', u = h
    (3)  with solver_type "midpoint", steps of second order have phi_1(u) / 2 for phi_2(u)

References: Lu et al. 2022, arXiv:2206.00927 (dpmsolver) and arXiv:2211.01095 (the others).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias

from ddpm_jax.schedulers.exponential import ClippedSteps, Form, phis
from ddpm_jax.schedulers.fields import DynamicShifting, FinalSigmas, SolverOrder
from ddpm_jax.tables.builder import Level

AlgorithmType: TypeAlias = Literal[
    "dpmsolver", "dpmsolver++", "sde-dpmsolver", "sde-dpmsolver++", "deis"
]
SolverType: TypeAlias = Literal["midpoint", "heun", "logrho", "bh1", "bh2"]

FOREIGN: Mapping[str, Mapping[Any, str]] = {
    "algorithm_type": {"deis": "dpmsolver++"},
    "solver_type": dict.fromkeys(("logrho", "bh1", "bh2"), "midpoint"),
}


@dataclass(frozen=True)
class DPMForm(Form):
    """What (1) to (3) depend on. m is x0 in the "++" forms.

    Attributes:
        midpoint: (3).
    """

    midpoint: bool = False

    def weights(self, end: Level, h: float) -> tuple[float, float, float]:
        """Of D1 in a step of second order, and of D1 and D2 in one of third order, (2) and (3)."""
        size, u = self.kernel(end, h)
        even, along, across = (-size * u * phi for phi in phis(u, 3))
        return even / 2 if self.midpoint else along, along, across


def first_slope(node: float) -> list[float]:
    """D1 at 0 of the line through m at 0 and at a node, as weights on these values.

    The node may be infinite, where a run begins at the data: its value has no weight then.
    """
    return [-1 / node, 1 / node]


def both_slopes(near: float, far: float) -> tuple[list[float], list[float]]:
    """D1 and D2 at 0 of the parabola through m at 0 and at two nodes; `far` may be infinite."""
    secants, gap = (-1 / near, 1 / near, 0.0), far - near
    curve = ((1 / near - 1 / far) / gap, -1 / near / gap, 1 / far / gap)
    bent = [secant - near * bend for secant, bend in zip(secants, curve, strict=True)]
    return bent, [2 * bend for bend in curve]


@dataclass(frozen=True, kw_only=True)
class DPMSolver(SolverOrder, ClippedSteps):
    """Base of the DPM-Solvers.

    Attributes:
        solver_order: highest order of a step, 1 to 3; the first steps have lower ones.
        algorithm_type: the form of (1) and (2). Another solver's "deis" becomes "dpmsolver++".
        solver_type: of the steps of second order, (3). Other solvers' "logrho", "bh1" and "bh2"
            become "midpoint".
    """

    algorithm_type: AlgorithmType = "dpmsolver++"
    solver_type: SolverType = "midpoint"

    _foreign: ClassVar[Mapping[str, Mapping[Any, str]]] = FOREIGN

    def _form(self) -> DPMForm:
        return DPMForm(
            of_x0=self.algorithm_type.endswith("++"),
            direction="refined_eps" if self.thresholding else "eps",
            tau=1.0 if self.algorithm_type.startswith("sde") else 0.0,
            midpoint=self.solver_type == "midpoint",
        )


@dataclass(frozen=True, kw_only=True)
class DenoisingDPMSolver(FinalSigmas, DPMSolver, DynamicShifting):
    """Base of those that go to the data."""

    def _faults(self) -> Sequence[str]:
        faults = list(super()._faults())
        if self.final_sigmas_type == "zero" and not self._form().of_x0:
            faults.append(
                'final_sigmas_type "zero" needs algorithm_type "dpmsolver++" or "sde-dpmsolver++": '
                f'{self.algorithm_type!r} takes "sigma_min"'
            )
        return faults
