r"""Predictor-corrector sampling of the variance-exploding SDE (Song et al. 2021, arXiv:2011.13456).

The network is given x = x0 + sigma eps and sigma, and answers with the score, -eps / sigma. The N
levels are even steps of log sigma from sigma_max to sigma_min, after which sigma' = 0. At each one

    (1)  x <- x + h score + sqrt(2 h) z,   h = 2 (snr |z| / |score|)^2                  [Alg. 4]
    (2)  x <- x + (sigma^2 - sigma'^2) score + sqrt(sigma^2 - sigma'^2) z               [Alg. 2]

with (1) `correct_steps` times. Its norms would make an image depend on the others in its batch.
Here they are those that are expected of d pixels, sqrt(d) and sqrt(d) / sigma, so that h =
2 (snr sigma)^2. The last row adds no noise.

What the network is told is the sigma of time t_i, which ends a little earlier than the levels:

    (3)  sigma(t) = sigma_min (sigma_max / sigma_min)^t,   t_i = 1 - (1 - sampling_eps) i / (N - 1)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt
from typing import Any, ClassVar

import numpy as np

from ddpm_jax.hub.config import SCORE_FAMILY
from ddpm_jax.schedulers.continuous import SigmaRange
from ddpm_jax.tables.builder import Level
from ddpm_jax.tables.readings import Reading
from ddpm_jax.tables.table import Table


@dataclass(frozen=True, kw_only=True)
class ScoreSdeVeScheduler(SigmaRange):
    """Predictor-corrector sampling; stochastic. Timesteps are the noise levels themselves.

    N steps take (1 + correct_steps) N evaluations.

    Attributes:
        num_train_timesteps: the most steps; timestep t of `add_noise` is the t-th of these levels.
        snr: the corrector's ratio of signal to noise, in [0, 1), equation (1).
        sampling_eps: the last time, in (0, 1), equation (3); below 1 / (N - 1), so that times and
            levels stay together.
        correct_steps: corrector steps before each step of the predictor, 0..1000.

    Raises:
        ValueError: at construction, naming every field that is refused.
    """

    family: ClassVar[frozenset[str]] = SCORE_FAMILY
    stochastic: ClassVar[bool] = True
    one_row_per_step: ClassVar[bool] = False

    num_train_timesteps: int = 2000
    snr: float = 0.15
    sigma_min: float = 0.01
    sigma_max: float = 1348.0
    sampling_eps: float = 1e-5
    correct_steps: int = 1

    def _faults(self) -> Sequence[str]:
        faults = list(super()._faults())
        if not 0 <= self.snr < 1:
            faults.append(f"snr must lie in [0, 1), got {self.snr}")
        if not 0 < self.sampling_eps < 1:
            faults.append(f"sampling_eps must lie in (0, 1), got {self.sampling_eps}")
        if not 0 <= self.correct_steps <= 1000:
            faults.append(f"correct_steps must lie in 0..1000, got {self.correct_steps}")
        return faults

    def _write(self, levels: list[Level], dtype: Any) -> Table:
        build, push = self._builder("x"), 2 * self.snr
        for level, end in pairwise(levels):
            sigma, square = level.sigma, level.sigma**2 - end.sigma**2
            for _ in range(self.correct_steps):  # (1), h = (push sigma)^2 / 2
                x = {"x": 1.0, "eps": -(push**2) * sigma / 2, "z": push * sigma}
                build.row(*level, x=x)
            noise = sqrt(square) if end.sigma > 0 else 0.0
            build.row(*level, x={"x": 1.0, "eps": -square / sigma, "z": noise})  # (2)
        return build.build(levels[0].sigma, dtype, stochastic=True)

    def _reading(self, alpha: float, sigma: float) -> Reading:
        return Reading(1.0, (1.0, sigma**2), (0.0, -sigma))

    # Grids.

    def _levels_of_count(self, count: int) -> list[Level]:
        if (count - 1) * self.sampling_eps >= 1:
            raise ValueError(
                f"sampling_eps must be below 1 / (num_inference_steps - 1) = {1 / (count - 1):g}, "
                f"got {self.sampling_eps}"
            )
        times = np.linspace(1.0, self.sampling_eps, count)
        told = self.sigma_min * (self.sigma_max / self.sigma_min) ** times  # (3)
        return self._paired(told, self._sigmas(count))
