r"""SA-Solver: Adams methods for diffusions with any amount of noise (Xue et al. 2023, 2309.05019).

A function tau of the timestep scales the noise of the reversed diffusion; 0 is the probability
flow. `ddpm_jax.schedulers.adams` has the steps and `ddpm_jax.schedulers.exponential` their parts,
both with tau constant over a step. The corrector keeps the noise of its predictor.

With m = x0 two values of m, in a predictor or a corrector, give the weight of the authors' code:

    (1)  psi = 1 / 2

The last step adds no noise: its tau is 0.

Reference: arXiv:2309.05019, Algorithm 1.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, ClassVar, Literal

from ddpm_jax._typing import is_number
from ddpm_jax.schedulers.adams import AdamsMethod, Orders
from ddpm_jax.schedulers.exponential import ClippedSteps, Form, phis
from ddpm_jax.tables.builder import Level

HIGHEST_ORDER = 4
NOISY = (200.0, 800.0)  # the timesteps between which the default tau is 1, as in diffusers


def default_tau(timestep: float) -> float:
    """The tau of a config without one: 1 at timesteps 200 to 800, 0 elsewhere."""
    first, last = NOISY
    return 1.0 if first <= timestep <= last else 0.0


@dataclass(frozen=True, kw_only=True)
class SASolverScheduler(AdamsMethod, ClippedSteps):
    """SA-Solver; stochastic. N steps take N evaluations; the last one is not corrected.

    A run ends at the training schedule's first level. Where the noise levels are chosen, not their
    timesteps, it stays at the last one. With `start` the rest begins with no past, as a whole run
    does.

    Attributes:
        predictor_order: number of values of m that a predictor reads, 1 to 4; the first steps have
            fewer, and with `lower_order_final` the last.
        corrector_order: the same of a corrector, of which one is at the predicted sample, 1 to 4.
        tau_func: the amount of noise at a timestep, >= 0, as a function of it, which may be
            fractional; None: 1 at timesteps 200 to 800 and 0 elsewhere. Two schedulers are equal
            if they have the same function; one with a function cannot be written to a file.
        algorithm_type: m is x0 ("data_prediction") or eps ("noise_prediction").

    Raises:
        ValueError: at construction, naming every field that is refused; in `table`, if `tau_func`
            gives anything but a finite number >= 0.
    """

    stochastic: ClassVar[bool] = True

    predictor_order: int = 2
    corrector_order: int = 2
    tau_func: Callable[[float], float] | None = None
    algorithm_type: Literal["data_prediction", "noise_prediction"] = "data_prediction"

    _unchecked: ClassVar[tuple[str, ...]] = (*ClippedSteps._unchecked, "tau_func")

    def _faults(self) -> Sequence[str]:
        faults = list(super()._faults())
        orders = {"predictor": self.predictor_order, "corrector": self.corrector_order}
        for name, order in orders.items():
            if not 1 <= order <= HIGHEST_ORDER:
                faults.append(f"{name}_order must lie in 1..{HIGHEST_ORDER}, got {order}")
        if self.tau_func is not None and not callable(self.tau_func):
            faults.append(
                f"tau_func must be a function of the timestep or None, got {self.tau_func!r}"
            )
        return faults

    def _tau(self, timestep: float) -> float:
        tau: Any = (self.tau_func or default_tau)(timestep)
        if not (is_number(tau) and isfinite(tau) and tau >= 0):
            raise ValueError(
                f"tau_func must give a finite number >= 0, got {tau!r} at timestep {timestep:g}"
            )
        return float(tau)

    def _form(self, level: Level) -> Form:
        direction = "refined_eps" if self.thresholding else "eps"
        return Form(self._of_x0(), direction, self._tau(level.timestep))

    def _of_x0(self) -> bool:
        return self.algorithm_type == "data_prediction"

    def _history(self) -> int:
        return max(self.predictor_order, self.corrector_order - 1)

    def _orders(self, step: int, steps: int, known: int) -> Orders:
        left = steps - step if self.lower_order_final else HIGHEST_ORDER
        predictor = min(self.predictor_order, left, known)
        return Orders(predictor, min(self.corrector_order, left + 1, known + 1))

    def _slope(self, u: float) -> float:
        return 0.5 if self._of_x0() else phis(u, 2)[1]  # (1)
