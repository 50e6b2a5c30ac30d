r"""Heun's method with churn, for variance-exploding networks.

Reference: Karras et al. 2022, arXiv:2206.00364. The noise levels are those of Table 1, column "VE",
and the steps those of Algorithm 2: churn as in `ddpm_jax.schedulers.churn`, then (1) and (2) of
`ddpm_jax.schedulers.heun` from the raised level.

    (1)  sigma_i = sigma_max (sigma_min / sigma_max)^(i / (N - 1)),   i = 0, ..., N-1,   then 0

The network is given x and sigma, and its output reads as x0 = x + sigma output. (A network of Song
et al. 2021, on data y = (x + 1) / 2, gives this output as (sigma / 2) score(y, sigma / 2).)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Unpack

import numpy as np
from jaxtyping import Float

from ddpm_jax.hub.config import KARRAS_FAMILY
from ddpm_jax.schedulers.base import MOST_TIMESTEPS, GridOptions
from ddpm_jax.schedulers.churn import Churn, churned
from ddpm_jax.schedulers.continuous import SigmaRange
from ddpm_jax.schedulers.heun import HEUN, heun_rows
from ddpm_jax.tables.builder import Level
from ddpm_jax.tables.readings import Reading
from ddpm_jax.tables.table import Table


@dataclass(frozen=True, kw_only=True)
class KarrasVeScheduler(SigmaRange):
    """Heun's method with churn; of second order. Timesteps are the noise levels themselves.

    N steps take 2 N - 1 evaluations. There are no timesteps of training, so no `add_noise`.

    Attributes:
        s_noise: scale of the churn noise, >= 0.
        s_churn: total amount of churn, >= 0; exactly 0 needs no keys.
        s_min: churn only from this sigma on, >= 0.
        s_max: churn only up to this sigma, >= 0.

    Raises:
        ValueError: at construction, naming every field that is refused.
    """

    family: ClassVar[frozenset[str]] = KARRAS_FAMILY
    order: ClassVar[int] = 2
    one_row_per_step: ClassVar[bool] = False

    num_train_timesteps: ClassVar[int] = MOST_TIMESTEPS  # pyright: ignore[reportIncompatibleVariableOverride]
    """No field here: the limit of the number of steps."""

    sigma_min: float = 0.02
    sigma_max: float = 100.0
    s_noise: float = 1.007
    s_churn: float = 80.0
    s_min: float = 0.05
    s_max: float = 50.0

    def _faults(self) -> Sequence[str]:
        names = ("s_noise", "s_churn", "s_min", "s_max")
        given = {name: getattr(self, name) for name in names}
        wrong = [f"{name} must be at least 0, got {v}" for name, v in given.items() if not v >= 0]
        return [*super()._faults(), *wrong]

    def table(self, num_inference_steps: int | None = None, **grid: Unpack[GridOptions]) -> Table:
        """The run as a table; two rows per step, but one for the last.

        Args:
            num_inference_steps: number of steps N.
            **grid: timesteps, sigmas, grid, start, dtype; see `GridOptions`.

        Raises:
            ValueError: as for any scheduler.
        """
        levels, dtype = self._run(num_inference_steps, grid)
        count = num_inference_steps or len(levels) - 1 + grid.get("start", 0)
        return self._write(levels, dtype, count)

    def _write(self, levels: list[Level], dtype: Any, count: int = 1) -> Table:
        build = self._builder(*HEUN)
        churn = Churn(self.s_churn, self.s_min, self.s_max, self.s_noise)
        raised, noise = churned(levels[:-1], churn, count, self._timestep_of)
        for level, end, after in zip(raised, levels[1:], [*noise[1:], 0.0], strict=True):
            heun_rows(build, level, end, {"eps": 1.0}, after)
        prior = np.hypot(levels[0].sigma, noise[0])
        return build.build(prior, dtype, stochastic=self.s_churn > 0)

    def _reading(self, alpha: float, sigma: float) -> Reading:
        return Reading(1.0, (1.0, sigma), (0.0, -1.0))

    def _training_levels(self) -> tuple[Float[np.ndarray, "T"], Float[np.ndarray, "T"]]:
        raise ValueError(
            f"{type(self).__name__} has no timesteps of training: x0 + sigma noise is "
            "ddpm_jax.sampling.forward.add_noise(x0, noise, 1.0, sigma)"
        )
