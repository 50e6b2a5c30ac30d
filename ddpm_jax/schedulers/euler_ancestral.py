r"""Ancestral sampling with Euler steps (Karras et al. 2022, arXiv:2206.00364, in Song et al.'s
variance-exploding form, arXiv:2011.13456, eq. 47).

From sigma to the next one down, sigma', Euler goes a little too far and noise brings it back:

    (1)  sigma_up^2   = sigma'^2 (sigma^2 - sigma'^2) / sigma^2
    (2)  sigma_down^2 = sigma'^2 - sigma_up^2 = sigma'^4 / sigma^2
    (3)  x <- x + (sigma_down - sigma) eps + sigma_up z
"""

from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np

from ddpm_jax._typing import Timesteps
from ddpm_jax.schedulers.sigmas import SigmaScheduler, exploding
from ddpm_jax.tables.builder import TableBuilder
from ddpm_jax.tables.table import Table


@dataclass(frozen=True, kw_only=True)
class EulerAncestralDiscreteScheduler(SigmaScheduler):
    """Ancestral Euler sampling; stochastic, x0 is never clipped.

    Raises:
        ValueError: at construction, naming every field that is refused.
    """

    def table(
        self,
        num_inference_steps: int | None = None,
        *,
        timesteps: Timesteps | None = None,
        start: int = 0,
        dtype: Any = np.float32,
    ) -> Table:
        """The run as a table; one row per step.

        Args:
            num_inference_steps: number of steps, in 1..num_train_timesteps.
            timesteps: exactly these, strictly descending, in place of the spacing; may be
                fractional.
            start: leave out this many of the first steps.
            dtype: of the columns; float64 gives them uncast.

        Raises:
            ValueError: neither or bad numbers of steps, or a start past the last step.
        """
        grid = self._from_start(self._timesteps(num_inference_steps, timesteps), start)
        sigmas = self._sigmas(grid)
        build = TableBuilder(("x",), self.prediction_type, None)
        for level, end in zip(exploding(grid, sigmas), np.append(sigmas[1:], 0.0), strict=True):
            down = end**2 / level.sigma  # (2)
            up = sqrt(max(end**2 - down**2, 0.0))  # (1)
            build.row(*level, x={"x": 1.0, "eps": down - level.sigma, "z": up})  # (3)
        return build.build(self._prior_scale(float(sigmas[0])), dtype, stochastic=True)
