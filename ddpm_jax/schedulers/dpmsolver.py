r"""What the DPM-Solvers share: their fields, and their steps in lambda = log(alpha / sigma).

A step goes from a level to the next one, (alpha', sigma'), over h = lambda' - lambda. Its part of
first order moves along constant (x0, eps), with new noise z in the stochastic forms:

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
from math import exp, expm1, inf, isnan, sqrt
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias

import numpy as np

from ddpm_jax._typing import is_number
from ddpm_jax.schedulers.ddpm import VarianceType
from ddpm_jax.schedulers.exponential import CountedSteps, phis
from ddpm_jax.schedulers.fields import DynamicShifting, FinalSigmas
from ddpm_jax.tables.builder import Level

AlgorithmType: TypeAlias = Literal[
    "dpmsolver", "dpmsolver++", "sde-dpmsolver", "sde-dpmsolver++", "deis"
]
SolverType: TypeAlias = Literal["midpoint", "heun", "logrho", "bh1", "bh2"]

Mixture: TypeAlias = dict[str, float]
"""The new value of a register: a weight for each of the builder's sources."""

HIGHEST_ORDER = 3
FOREIGN: Mapping[str, Mapping[Any, str]] = {
    "algorithm_type": {"deis": "dpmsolver++"},
    "solver_type": dict.fromkeys(("logrho", "bh1", "bh2"), "midpoint"),
}


class Form(NamedTuple):
    """What (1) to (3) depend on.

    Attributes:
        of_x0: m is x0, in the "++" forms.
        noisy: steps draw noise, in the "sde" forms.
        midpoint: (3).
        direction: the builder's source for eps: "eps", or "refined_eps" if x0 is refined.
    """

    of_x0: bool
    noisy: bool
    midpoint: bool
    direction: str

    @property
    def integrand(self) -> str:
        """The builder's source for m."""
        return "x0" if self.of_x0 else self.direction

    def first_order(self, end: Level, h: float) -> Mixture:
        """Equation (1)."""
        d, n = 1.0, 0.0
        if self.noisy:
            d, n = (exp(-h), -expm1(-2 * h)) if self.of_x0 else (1 - expm1(h), expm1(2 * h))
        return {"x0": end.alpha, self.direction: d * end.sigma, "z": sqrt(n) * end.sigma}

    def weights(self, end: Level, h: float) -> tuple[float, float, float]:
        """Of D1 in a step of second order, and of D1 and D2 in one of third order, (2) and (3)."""
        size, u = (end.alpha, -h) if self.of_x0 else (end.sigma, h)
        if self.noisy:
            size, u = (size, 2 * u) if self.of_x0 else (2 * size, u)
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
class DPMSolver(CountedSteps):
    """Base of the DPM-Solvers.

    Attributes:
        solver_order: highest order of a step, 1 to 3; the first steps have lower ones.
        algorithm_type: the form of (1) and (2). Another solver's "deis" becomes "dpmsolver++".
        solver_type: of the steps of second order, (3). Other solvers' "logrho", "bh1" and "bh2"
            become "midpoint".
        lambda_min_clipped: leave out the noisiest timesteps, with lambda below this; where the grid
            is one of timesteps. -inf leaves out none.
        variance_type: what the network was trained with; DPM-Solvers use no variance. The channels
            of a learned one are left out.
    """

    solver_order: int = 2
    algorithm_type: AlgorithmType = "dpmsolver++"
    solver_type: SolverType = "midpoint"
    lambda_min_clipped: float = -inf
    variance_type: VarianceType | None = None

    _unchecked: ClassVar[tuple[str, ...]] = (*CountedSteps._unchecked, "lambda_min_clipped")
    _foreign: ClassVar[Mapping[str, Mapping[Any, str]]] = FOREIGN

    def _faults(self) -> Sequence[str]:
        faults, clipped = list(super()._faults()), self.lambda_min_clipped
        if not 1 <= self.solver_order <= HIGHEST_ORDER:
            faults.append(f"solver_order must lie in 1..{HIGHEST_ORDER}, got {self.solver_order}")
        if not is_number(clipped) or isnan(clipped):
            faults.append(f"lambda_min_clipped must be a number or -inf, got {clipped!r}")
        return faults

    def _form(self) -> Form:
        return Form(
            of_x0=self.algorithm_type.endswith("++"),
            noisy=self.algorithm_type.startswith("sde"),
            midpoint=self.solver_type == "midpoint",
            direction="refined_eps" if self.thresholding else "eps",
        )

    def _last_timestep(self) -> int:
        log_snrs = -np.log(self.noise_schedule.noise_ratio)
        return int(np.sum(log_snrs >= self.lambda_min_clipped))


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
