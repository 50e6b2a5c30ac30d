r"""The linear multistep method on the probability-flow ODE.

Adams and Bashforth's method for uneven steps (Hairer, Norsett and Wanner 1993, Solving Ordinary
Differential Equations I, section III.5), as in k-diffusion, in the sigma of Karras et al. 2022
(arXiv:2206.00364), where dx / dsigma = eps. With the last k levels sigma_0 (here), sigma_1, ...:

    (1)  x <- x + sum_j w_j eps_j,   w_j = integral from sigma_0 to sigma' of l_j
    (2)  l_j(s) = prod_{i != j} (s - sigma_i) / (sigma_j - sigma_i)

The l_j add up to 1, so the w_j add up to sigma' - sigma_0, and (1) is

    (3)  x <- x0 + (sigma' - w_1 - w_2 - ...) eps + w_1 eps_1 + w_2 eps_2 + ...

k grows from 1 at the first row to `order`. That first step, Euler's, leaves an error of second
order in the whole run.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Unpack

import numpy as np

from ddpm_jax._typing import TimestepSpacing, is_whole
from ddpm_jax.schedulers.base import GridOptions
from ddpm_jax.schedulers.fields import SigmaSpacings
from ddpm_jax.schedulers.sigmas import SigmaScheduler
from ddpm_jax.tables.builder import Level
from ddpm_jax.tables.table import Table

DEFAULT_ORDER = 4


@dataclass(frozen=True, kw_only=True)
class LMSDiscreteScheduler(SigmaSpacings, SigmaScheduler):
    """Linear multistep sampling; deterministic, x0 is never clipped.

    N steps take N evaluations. With `start` the rest begins with no past, as a whole run does.

    Raises:
        ValueError: at construction, naming every field that is refused.
    """

    order: ClassVar[int] = 2
    one_row_per_step: ClassVar[bool] = False  # one it is, but with `start` the rows are others

    timestep_spacing: TimestepSpacing = "linspace"

    def table(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        num_inference_steps: int | None = None,
        *,
        order: int = DEFAULT_ORDER,
        **grid: Unpack[GridOptions],
    ) -> Table:
        """The run as a table; one row per step.

        Args:
            num_inference_steps: number of steps, in 1..num_train_timesteps.
            order: number of levels that a step uses, its own included, >= 1; 1 is Euler's method.
            **grid: timesteps, sigmas, grid, start, dtype; see `GridOptions`.

        Raises:
            ValueError: as for any scheduler, or a bad order.
        """
        if not is_whole(order) or order < 1:
            raise ValueError(f"order must be a whole number >= 1, got {order!r}")
        return self._write(*self._run(num_inference_steps, grid), order)

    def _write(self, levels: list[Level], dtype: Any, order: int = DEFAULT_ORDER) -> Table:
        past = [f"eps_{j}" for j in range(1, order)]
        build = self._builder("x", *past)
        push = {new: {old: 1.0} for old, new in pairwise(["eps", *past])}
        sigmas: list[float] = []  # of this row and of those that the registers hold
        for level, end in pairwise(levels):
            if level.sigma == end.sigma:  # "quadratic" repeats timesteps; (2) needs distinct levels
                build.row(*level)
                continue
            sigmas = [level.sigma, *sigmas][:order]
            weights = _past_weights(sigmas, end.sigma)
            x = {"x0": 1.0, "eps": end.sigma - sum(weights)}  # (3)
            build.row(*level, x=x | dict(zip(past, weights, strict=False)), **push)
        return build.build(self._prior_scale(levels[0]), dtype)


def _past_weights(sigmas: Sequence[float], end: float) -> list[float]:
    """w_1, w_2, ... of (1), by Gauss's quadrature, which is exact for these polynomials."""
    nodes, areas = np.polynomial.legendre.leggauss((len(sigmas) + 1) // 2)
    half = (end - sigmas[0]) / 2
    points = sigmas[0] + half * (nodes + 1)
    weights: list[float] = []
    for j, own in enumerate(sigmas[1:], start=1):
        others = np.array([*sigmas[:j], *sigmas[j + 1 :]])
        basis = np.prod((points[:, None] - others) / (own - others), axis=1)  # (2)
        weights.append(float(half * areas @ basis))
    return weights
