r"""DPM-Solver with a history, walked up, from images to noise.

The steps are those of `ddpm_jax.schedulers.dpmsolver_multistep`, with lambda falling: the ODE has
no direction (Lu et al. 2022, arXiv:2211.01095). The stochastic forms have one, and are refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from ddpm_jax.schedulers.ascending import Ascending
from ddpm_jax.schedulers.dpmsolver_multistep import MultistepDPMSolver
from ddpm_jax.tables.builder import Level


@dataclass(frozen=True, kw_only=True)
class DPMSolverMultistepInverseScheduler(Ascending, MultistepDPMSolver):
    """DPM-Solver and DPM-Solver++ from images to noise; deterministic.

    N steps take N evaluations. A run of timesteps begins at that of the least noise, 0 unless
    `steps_offset` or the spacing say otherwise, and ends at the noisiest. Where the noise levels
    are chosen, not their timesteps, it stays at the last one, whose evaluation has no effect. A
    flow begins at the data. With `start` the rest begins with no past, as a whole run does.

    Attributes:
        algorithm_type: the form without noise. Another solver's "deis" becomes "dpmsolver++".

    Raises:
        ValueError: at construction, naming every field that is refused.
    """

    algorithm_type: Literal["dpmsolver", "dpmsolver++", "deis"] = "dpmsolver++"

    def _faults(self) -> Sequence[str]:
        faults, fault = list(super()._faults()), self._fault_at_the_data()
        if self.use_flow_sigmas and fault:
            faults.append(
                f"use_flow_sigmas begins at the data, where x says nothing of eps: {fault}"
            )
        return faults

    def _fault_at_the_data(self) -> str | None:
        if self.thresholding:
            return "thresholding reads it from x"
        return super()._fault_at_the_data()

    def _timestep_grid(self, count: int) -> Float[np.ndarray, "n"]:
        """Without the noisiest of the points, where the run ends; "trailing" has none to spare."""
        return self._grid_points(count)[-count:]

    def _levels_of_count(self, count: int) -> list[Level]:
        if self.use_flow_sigmas:
            return self._levels_of_sigmas(np.append(self._flow_grid(count), 0.0))
        levels = super()._levels_of_count(count)
        return levels if self._sigma_spacing() is None else [levels[0], *levels[:-1]]

    def _levels_of_timesteps(self, timesteps: Float[np.ndarray, "n"]) -> list[Level]:
        timesteps = np.append(self._last_timestep() - 1.0, timesteps)
        return self._paired(timesteps, self._sigmas(timesteps))

    def _levels_of_sigmas(self, sigmas: Float[np.ndarray, "n"]) -> list[Level]:
        return self._paired(self._timestep_of(sigmas), sigmas)
