r"""Euler's method with churn on the probability-flow ODE (Karras et al. 2022, arXiv:2206.00364,
Alg. 2).

    (1)  dx / dsigma = eps,   so   x <- x + (sigma' - sigma) eps = x0 + sigma' eps

With churn, noise raises sigma before an evaluation, and both the evaluation and the step start
from the raised level:

    (2)  gamma = min(s_churn / N, sqrt(2) - 1) where s_tmin <= sigma <= s_tmax, else 0
    (3)  sigma^ = (1 + gamma) sigma,   x^ = x + s_noise sqrt(sigma^^2 - sigma^2) z

In a table that noise belongs to the row before, and at the first row to the prior.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, sqrt
from typing import Any, NamedTuple, Unpack

import numpy as np
from jaxtyping import Float

from ddpm_jax._typing import is_number
from ddpm_jax.schedulers.base import GridOptions, Scheduler
from ddpm_jax.tables.builder import Level
from ddpm_jax.tables.table import Table

AT_A_LIMIT = 1e-9  # a level this near to s_tmin or s_tmax, relative, is one at it, and inside


class Churn(NamedTuple):
    """How much noise is added, by (2) and (3), and where."""

    s_churn: float = 0.0
    s_tmin: float = 0.0
    s_tmax: float = inf
    s_noise: float = 1.0

    def is_at(self, sigma: float) -> bool:
        """Whether there is any at a level."""
        low, high = self.s_tmin * (1 - AT_A_LIMIT), self.s_tmax * (1 + AT_A_LIMIT)
        return bool(self.s_churn > 0 and low <= sigma <= high)

    def check(self) -> None:
        """Raises ValueError for numbers that are no churn."""
        given = self._asdict()
        wrong = [f"{k}={v!r}" for k, v in given.items() if not is_number(v) or not v >= 0]
        if wrong or inf in (self.s_churn, self.s_noise):
            raise ValueError(f"churn takes numbers >= 0, got {', '.join(wrong) or 'inf'}")


def churned(
    levels: list[Level],
    churn: Churn,
    count: int,
    timestep_of: Callable[[Float[np.ndarray, "n"]], Float[np.ndarray, "n"]],
) -> tuple[list[Level], list[float]]:
    """Equations (2) and (3) for levels with alpha = 1.

    Args:
        levels: those of the steps.
        churn: how much.
        count: N, the number of steps of the whole run.
        timestep_of: what the network is told at noise levels.

    Returns:
        The raised levels, where the network is evaluated, and the standard deviations of the noise
        that raises x to each.
    """
    gamma, raised = min(churn.s_churn / count, sqrt(2) - 1), list(levels)
    for i, level in enumerate(levels):
        if churn.is_at(level.sigma):
            sigma = level.sigma * (1 + gamma)
            raised[i] = Level(float(timestep_of(np.array([sigma]))[0]), 1.0, sigma)
    pairs = zip(raised, levels, strict=True)
    return raised, [churn.s_noise * sqrt(a.sigma * a.sigma - b.sigma * b.sigma) for a, b in pairs]


@dataclass(frozen=True, kw_only=True)
class ChurnedEuler(Scheduler):
    """Base of the schedulers with Euler's method where alpha is 1; x0 is never clipped."""

    def table(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        num_inference_steps: int | None = None,
        *,
        s_churn: float = 0.0,
        s_tmin: float = 0.0,
        s_tmax: float = inf,
        s_noise: float = 1.0,
        **grid: Unpack[GridOptions],
    ) -> Table:
        """The run as a table; one row per step.

        Args:
            num_inference_steps: number of steps N, in 1..num_train_timesteps.
            s_churn: total amount of churn, >= 0, equation (2); exactly 0 needs no keys.
            s_tmin: churn only from this sigma on.
            s_tmax: churn only up to this sigma.
            s_noise: scale of the churn noise, >= 0, equation (3).
            **grid: timesteps, sigmas, grid, start, dtype; see `GridOptions`.

        Raises:
            ValueError: as for any scheduler, or negative churn.
        """
        churn = Churn(s_churn, s_tmin, s_tmax, s_noise)
        churn.check()
        levels, dtype = self._run(num_inference_steps, grid)
        count = num_inference_steps or len(levels) - 1 + grid.get("start", 0)
        return self._write(levels, dtype, churn, count)

    def _write(
        self, levels: list[Level], dtype: Any, churn: Churn | None = None, count: int = 1
    ) -> Table:
        churn, build = churn or Churn(), self._builder("x")
        raised, noise = churned(levels[:-1], churn, count, self._timestep_of)
        for level, end, after in zip(raised, levels[1:], [*noise[1:], 0.0], strict=True):
            stays = level.sigma == end.sigma
            x = {"x": 1.0} if stays else {"x0": 1.0, "eps": end.sigma}  # (1)
            build.row(*level, x={**x, "z": after})
        prior = np.hypot(self._prior_scale(levels[0]), noise[0])
        return build.build(prior, dtype, stochastic=churn.s_churn > 0)
