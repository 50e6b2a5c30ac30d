r"""What the Adams methods in lambda share: UniPC, DEIS and SA-Solver.

`ddpm_jax.schedulers.exponential` has the parts of a step. A predictor takes m as the polynomial
through its values here and at the levels before (Adams and Bashforth). A corrector does the step
again with a polynomial that also goes through m at the predicted sample (Adams and Moulton). Both
are x <- a x + sum_j w_j m_j + n z, with weights from the moments of (4) there:

    (1)  sum_j w_j r_j^k = - s u k! phi_{k+1}(u),   k = 0, 1, ...

over the places r_j of the levels within the step: 0 here, 1 at its end. Two values determine the
slope alone, and any weight that agrees with phi_2(u) at u = 0 keeps the order:

    (2)  sum_j w_j r_j = - s u psi(u)

The corrected and the predicted sample have the same a x + n z, so their difference is one of
weights. It needs m at the predicted sample, which the next row evaluates anyway; that row begins
with

    (3)  x <- x + sum_j (w_j of the corrector - w_j of the predictor) m_j

so a corrector costs no evaluation, and no register for the sample or the noise before the step; it
needs one value of m more. The last step has none.

References: Hairer, Norsett and Wanner 1993, Solving Ordinary Differential Equations I, section
III.1, for polynomials; Zhao et al. 2023, arXiv:2302.04867 (UniPC), for (1) and (2).
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, zip_longest
from math import factorial
from typing import Any, ClassVar, NamedTuple

import numpy as np
from jaxtyping import Float

from ddpm_jax._typing import TimestepSpacing
from ddpm_jax.schedulers.betas import SpacedTimesteps
from ddpm_jax.schedulers.exponential import (
    CountedSteps,
    Form,
    Mixture,
    log_snr,
    phis,
)
from ddpm_jax.tables.builder import Level
from ddpm_jax.tables.table import Table


class Orders(NamedTuple):
    """The values of m that a step reads.

    Attributes:
        predictor: here and before, at least 1.
        corrector: at its end, here and before; 0: the step is not corrected.
    """

    predictor: int
    corrector: int = 0


@dataclass(frozen=True, kw_only=True)
class AdamsMethod(CountedSteps, SpacedTimesteps):
    """Base of the Adams methods in lambda.

    Runs end at the training schedule's first level; those whose noise levels are chosen, not their
    timesteps, at their own last one.
    """

    order: ClassVar[int] = 2
    one_row_per_step: ClassVar[bool] = False  # one it is, but with `start` the rows are others

    timestep_spacing: TimestepSpacing = "linspace"

    @abstractmethod
    def _form(self, level: Level) -> Form:
        """How a step from a level integrates."""

    @abstractmethod
    def _history(self) -> int:
        """How many values of m before this one are kept."""

    @abstractmethod
    def _orders(self, step: int, steps: int, known: int) -> Orders:
        """The orders of a step, of 0..steps-1, where m is known at that many levels."""

    @abstractmethod
    def _slope(self, u: float) -> float:
        """The psi of (2)."""

    def _write(self, levels: list[Level], dtype: Any, left_out: int = 0) -> Table:
        past = [f"m_{j}" for j in range(1, self._history() + 1)]
        build = self._builder("x", *past)
        sources = [self._form(levels[0]).integrand, *past]
        push = {new: {old: 1.0} for old, new in pairwise(sources)}
        visited: list[float] = []  # lambda, here and of what the registers hold
        correction: list[float] = []  # (3), of the step before
        steps = len(levels) - 1 + left_out
        for step, (level, end) in enumerate(pairwise(levels), start=left_out):
            form, x = self._form(level), {"x": 1.0}
            if level[1:] == end[1:]:  # no step; what is left to do is the correction
                build.row(*level, x=_plus(x, sources, correction))
                correction = []
                continue
            visited = [log_snr(level), *visited][: len(sources)]
            orders = self._orders(step, steps, len(visited))
            if step == steps - 1:  # it adds no noise, and no row follows that could correct it
                form, orders = replace(form, tau=0.0), orders._replace(corrector=0)
            here, h = visited[0], log_snr(end) - visited[0]
            places = [(there - here) / h for there in visited]
            if end.sigma == 0:  # h is infinite
                orders = Orders(1)
            kernel = Kernel(*form.kernel(end, h), self._slope)
            predictor = kernel.beyond(places[: orders.predictor], here=0)
            x = _plus(form.first_order(end, h), sources, predictor)
            carried = form.carried(level, end, h)
            x = _plus(x, sources, [carried * weight for weight in correction])
            build.row(*level, x=x, **push)
            correction = kernel.correction([1.0, *places][: orders.corrector], predictor)
        return build.build(self._prior_scale(levels[0]), dtype, stochastic=self.stochastic)

    def _last_sigma(self) -> float:
        return float(self.noise_schedule.noise_ratio[0])

    def _last_sigma_after(self, sigmas: Float[np.ndarray, "n"]) -> float:
        return float(sigmas[-1]) if self._last_sigma() else 0.0


class Kernel(NamedTuple):
    """The right-hand sides of (1) and (2).

    Attributes:
        size: s.
        u: u, which may be infinite in steps of first order.
        slope: psi.
    """

    size: float
    u: float
    slope: Callable[[float], float]

    def beyond(self, places: Sequence[float], here: int) -> list[float]:
        """Weights of m at places, less the part of first order, which m here has, at that index.

        They add up to 0. Without m here, a single place has the whole part of first order.
        """
        others = [place for place in places if place != 0]
        if not others:
            return [0.0]
        if len(places) == 1:
            weights = phis(self.u, 1)
        elif len(others) == 1:
            weights = [self.slope(self.u) / others[0]]  # (2)
        else:
            moments = [factorial(k) * phi for k, phi in enumerate(phis(self.u, len(places)))]
            powers = np.vander(others, len(places), increasing=True).T
            weights = np.linalg.solve(powers[1:], moments[1:]).tolist()  # (1) for k = 1, 2, ...
        found = [-self.size * self.u * weight for weight in weights]
        found.insert(here, -sum(found))
        return found

    def correction(self, places: Sequence[float], predictor: Sequence[float]) -> list[float]:
        """Equation (3): weights of m at the predicted sample, where it was predicted from, ..."""
        if not places:
            return []
        pairs = zip_longest(self.beyond(places, here=1), [0.0, *predictor], fillvalue=0.0)
        return [corrected - predicted for corrected, predicted in pairs]


def _plus(x: Mixture, sources: Sequence[str], weights: Sequence[float]) -> Mixture:
    """A mixture with weights of m here and at the levels before added."""
    more = dict(zip(sources, weights, strict=False))
    return {name: x.get(name, 0.0) + more.get(name, 0.0) for name in [*x, *more]}
