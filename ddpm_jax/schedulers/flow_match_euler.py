r"""Euler's method on the straight paths of flow matching (arXiv:2210.02747).

From sigma to the next one down, sigma', the path or new noise:

    (1)  x <- x + (sigma' - sigma) (eps - x0) = (1 - sigma') x0 + sigma' eps
    (2)  x <- (1 - sigma') x0 + sigma' z                                  (`stochastic_sampling`)

The shift of `ddpm_jax.schedulers.flow_match` may follow from a picture's size, by mu (as in Flux):

    (3)  s = exp(mu), or mu itself;   mu is linear in the number of tokens of a picture

Then levels may be stretched to a last one, sigma_N [Lightricks' LTX-Video]:

    (4)  1 - sigma <- (1 - sigma) (1 - terminal) / (1 - sigma_N)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import exp
from typing import Any, Literal, Unpack

import numpy as np
from jaxtyping import Float

from ddpm_jax._typing import is_number
from ddpm_jax.schedulers.base import LEVEL_OPTIONS, GridOptions
from ddpm_jax.schedulers.fields import SigmaFlags
from ddpm_jax.schedulers.flow_match import FlowMatchScheduler
from ddpm_jax.tables.builder import Level
from ddpm_jax.tables.readings import Reading
from ddpm_jax.tables.spacing import check_count, sigma_grid, stretched_sigmas
from ddpm_jax.tables.table import Table


@dataclass(frozen=True, kw_only=True)
class FlowMatchEulerDiscreteScheduler(SigmaFlags, FlowMatchScheduler):
    """Euler's method, deterministic or, with `stochastic_sampling`, from new noise at each step.

    Attributes:
        shift: s, > 0; not read with `use_dynamic_shifting`.
        use_dynamic_shifting: s follows from `mu`, which a run needs then, equation (3).
        base_shift: mu of `base_image_seq_len` tokens, see `mu_of`.
        max_shift: mu of `max_image_seq_len` tokens.
        base_image_seq_len: a number of tokens, below the next.
        max_image_seq_len: a number of tokens.
        invert_sigmas: the network is told T (1 - sigma) and answers with x0 - eps, as Mochi's does.
        shift_terminal: the last level, in (0, 1), equation (4); None: as it comes. A single step
            begins and ends as it does without.
        time_shift_type: s is exp(mu), or mu itself; "linear" only with `use_dynamic_shifting`.
        stochastic_sampling: equation (2) instead of (1).

    Raises:
        ValueError: at construction, naming every field that is refused.
    """

    use_dynamic_shifting: bool = False
    base_shift: float = 0.5
    max_shift: float = 1.15
    base_image_seq_len: int = 256
    max_image_seq_len: int = 4096
    invert_sigmas: bool = False
    shift_terminal: float | None = None
    time_shift_type: Literal["exponential", "linear"] = "exponential"
    stochastic_sampling: bool = False

    def table(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        num_inference_steps: int | None = None,
        *,
        mu: float | None = None,
        **grid: Unpack[GridOptions],
    ) -> Table:
        """The run as a table; one row per step.

        Args:
            num_inference_steps: number of steps, in 1..num_train_timesteps.
            mu: of a picture's size, equation (3), see `mu_of`; with a number of steps and
                `use_dynamic_shifting`, which needs it. Above 0 if `time_shift_type` is "linear".
            **grid: timesteps, sigmas, grid, start, dtype; see `GridOptions`.

        Raises:
            ValueError: as for any scheduler; or mu is missing, bad, or not wanted.
        """
        if mu is None:
            return super().table(num_inference_steps, **grid)
        if not is_number(mu) or not np.isfinite(mu) or (self._linear() and not mu > 0):
            above = " above 0" if self._linear() else ""
            raise ValueError(f"mu must be a number{above}, got {mu!r}")
        if not self.use_dynamic_shifting:
            raise ValueError(f"mu needs use_dynamic_shifting, got {mu!r} without")
        chosen = [name for name in LEVEL_OPTIONS if grid.get(name) is not None]
        if chosen or num_inference_steps is None:
            raise ValueError(
                "mu shifts the levels of num_inference_steps: "
                + (f"leave out {chosen[0]} or mu" if chosen else "got none")
            )
        check_count(num_inference_steps, self.num_train_timesteps)
        levels = self._levels_of_sigmas(self._sigmas(num_inference_steps, mu))
        return self._write(*self._run(None, grid, levels))

    def mu_of(self, image_seq_len: int) -> float:
        """The mu of (3) for a picture with that many tokens, as in the pipelines of diffusers."""
        tokens = self.max_image_seq_len - self.base_image_seq_len
        slope = (self.max_shift - self.base_shift) / tokens
        return self.base_shift + slope * (image_seq_len - self.base_image_seq_len)

    def _write(self, levels: list[Level], dtype: Any) -> Table:
        build = self._builder("x")
        noise = "z" if self.stochastic_sampling else "eps"
        for level, end in pairwise(levels):
            build.row(*level, x={"x0": end.alpha, noise: end.sigma})  # (1), (2)
        prior = self._prior_scale(levels[0])
        return build.build(prior, dtype, stochastic=self.stochastic_sampling)

    def _reading(self, alpha: float, sigma: float) -> Reading:
        scale, x0, eps = super()._reading(alpha, sigma)
        sign = -1.0 if self.invert_sigmas else 1.0
        return Reading(scale, (x0[0], sign * x0[1]), (eps[0], sign * eps[1]))

    # Grids.

    def _levels_of_count(self, count: int) -> list[Level]:
        if self.use_dynamic_shifting:
            raise ValueError("use_dynamic_shifting needs mu=, which `mu_of` gives, or sigmas=")
        return super()._levels_of_count(count)

    def _sigmas(self, count: int, mu: float | None = None) -> Float[np.ndarray, "n"]:
        shift = self.shift if mu is None else mu if self._linear() else exp(mu)
        sigmas = self._even(count, self._training_shift(), shift)
        if self.shift_terminal is not None and count > 1:
            sigmas = stretched_sigmas(sigmas, self.shift_terminal)  # (4)
        if spacing := self._sigma_spacing():
            sigmas = sigma_grid(spacing, float(sigmas[0]), float(sigmas[-1]), count)
        return np.append(sigmas, 0.0)

    def _linear(self) -> bool:
        return self.time_shift_type == "linear"

    def _training_shift(self) -> float:
        return 1.0 if self.use_dynamic_shifting else self.shift

    def _timestep_of(self, sigmas: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
        return super()._timestep_of(1 - sigmas if self.invert_sigmas else sigmas)

    def _fault_of_grid(self, name: str) -> str | None:
        if name == "timesteps" and self.invert_sigmas:
            return "timesteps ascend with invert_sigmas: give sigmas"
        return super()._fault_of_grid(name)

    def _faults(self) -> Sequence[str]:
        faults = list(super()._faults())
        if self.shift_terminal is not None and not 0 < self.shift_terminal < 1:
            faults.append(f"shift_terminal must lie in (0, 1), got {self.shift_terminal}")
        if not self.base_image_seq_len < self.max_image_seq_len:
            faults.append(
                "base_image_seq_len must be below max_image_seq_len, "
                f"got {self.base_image_seq_len} and {self.max_image_seq_len}"
            )
        if self._linear() and not self.use_dynamic_shifting:
            faults.append(
                'time_shift_type "linear" needs use_dynamic_shifting, with which alone it is read'
            )
        return faults
