r"""UniPC: predictor and corrector of one form (Zhao et al. 2023, arXiv:2302.04867).

`ddpm_jax.schedulers.adams` has the steps. UniP-p takes m here and at the last p - 1 levels. UniC-p
adds m at the predicted sample and is of order p + 1 (the paper's theorem 3.1). It costs no
evaluation: m is not evaluated again at the corrected sample. B(h) shows where two values of m
determine one weight, which is set to 1/2, in UniP-2 and UniC-1: there psi = B / (2 u),

    (1)  bh1:  B = u,         psi = 1 / 2
         bh2:  B = e^u - 1,   psi = phi_1(u) / 2

In the others B cancels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Float

from ddpm_jax._typing import is_whole
from ddpm_jax.schedulers.adams import AdamsMethod, Orders
from ddpm_jax.schedulers.exponential import Form, phis
from ddpm_jax.schedulers.fields import (
    DynamicShifting,
    FinalSigmas,
    SigmaLimits,
    SolverOrder,
    ZeroTerminalSNR,
)
from ddpm_jax.tables.builder import Level
from ddpm_jax.tables.spacing import shifted_sigmas, sigma_grid, stretched_sigmas

BELOW_NOISE = 1e-6  # a flow begins this far below sigma 1, where lambda is infinite; as diffusers


@dataclass(frozen=True, kw_only=True)
class UniPCMultistepScheduler(
    SolverOrder, FinalSigmas, SigmaLimits, AdamsMethod, ZeroTerminalSNR, DynamicShifting
):
    """UniPC; deterministic. N steps take N evaluations; the last one is not corrected.

    With `start` the rest begins with no past, as a whole run does.

    Attributes:
        solver_order: p, the highest order of the predictor, 1 to 3; the first steps have lower
            ones, and with `lower_order_final` the last.
        predict_x0: m is x0; otherwise eps.
        solver_type: the B(h) of (1). Other solvers' "midpoint", "heun" and "logrho" become "bh2".
        disable_corrector: steps, counted from 0, that are not corrected; kept as a tuple.
        solver_p: only None: another scheduler as the predictor is not supported.
        shift_terminal: the last level of a flow before its end, in (0, 1); None: as it comes. A
            single step begins and ends as it does without.

    Raises:
        ValueError: at construction, naming every field that is refused.
    """

    order: ClassVar[int] = 3

    predict_x0: bool = True
    solver_type: Literal["bh1", "bh2", "midpoint", "heun", "logrho"] = "bh2"
    disable_corrector: Sequence[int] = ()
    solver_p: None = None
    shift_terminal: float | None = None

    _foreign: ClassVar[Mapping[str, Mapping[Any, str]]] = {
        "solver_type": dict.fromkeys(("midpoint", "heun", "logrho"), "bh2")
    }
    _unchecked: ClassVar[tuple[str, ...]] = (
        *AdamsMethod._unchecked,
        "disable_corrector",
        "solver_p",
    )
    _flow_spacings: ClassVar[tuple[str, ...]] = ("use_karras_sigmas",)

    def __post_init__(self) -> None:
        if isinstance(self.disable_corrector, list):
            object.__setattr__(self, "disable_corrector", tuple(self.disable_corrector))
        super().__post_init__()

    def _faults(self) -> Sequence[str]:
        faults, disabled = list(super()._faults()), self.disable_corrector
        steps = isinstance(disabled, tuple) and all(is_whole(k) and k >= 0 for k in disabled)
        if not steps:
            faults.append(f"disable_corrector must be a list of steps >= 0, got {disabled!r}")
        if self.solver_p is not None:
            faults.append(
                "solver_p is not supported: the predictor is UniP; for another method choose its "
                f"own scheduler. It must be None, got {self.solver_p!r}"
            )
        if self.thresholding and not self.predict_x0:
            faults.append("thresholding needs predict_x0: it acts on m, which is eps without")
        if self.shift_terminal is not None and not 0 < self.shift_terminal < 1:
            faults.append(f"shift_terminal must lie in (0, 1), got {self.shift_terminal}")
        if self.shift_terminal is not None and not self.use_flow_sigmas:
            faults.append(
                f"shift_terminal needs use_flow_sigmas, got {self.shift_terminal} without"
            )
        if self.use_flow_sigmas and self.use_karras_sigmas:
            read = {"flow_shift": self.flow_shift != 1, "shift_terminal": bool(self.shift_terminal)}
            faults += [
                f"{name} and use_karras_sigmas both choose the levels of a flow: leave one out"
                for name, given in read.items()
                if given
            ]
        return faults

    def _form(self, level: Level) -> Form:
        return Form(self.predict_x0, "refined_eps" if self.thresholding else "eps")

    def _history(self) -> int:
        return self.solver_order

    def _orders(self, step: int, steps: int, known: int) -> Orders:
        highest = min(self.solver_order, steps - step) if self.lower_order_final else known
        order = min(self.solver_order, highest, known)
        return Orders(order, 0 if step in self.disable_corrector else order + 1)

    def _slope(self, u: float) -> float:
        return 0.5 if self.solver_type == "bh1" else phis(u, 1)[0] / 2  # (1)

    def _flow_grid(self, count: int) -> Float[np.ndarray, "n"]:
        """Even steps from noise, shifted and stretched; or s / (1 + s) of karras sigmas s."""
        if self.use_karras_sigmas:
            ratios = sigma_grid("karras", *self._sigma_limits(count), count)
            return ratios / (1 + ratios)
        even = np.linspace(1, 1 / self.num_train_timesteps, count + 1)[:-1]
        sigmas = shifted_sigmas(even, self.flow_shift)
        if self.shift_terminal is not None and count > 1:
            sigmas = stretched_sigmas(sigmas, self.shift_terminal)
        return np.minimum(sigmas, 1 - BELOW_NOISE)
