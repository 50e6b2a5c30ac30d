r"""DDPM: ancestral sampling (Ho et al. 2020, arXiv:2006.11239).

From a level (alpha, sigma) to the next one down, (alpha', sigma'), with
beta = 1 - alpha^2 / alpha'^2:

    (1)  mean = (alpha' beta / sigma^2) x0 + (alpha / alpha') (sigma'^2 / sigma^2) x     [eq. 7]
    (2)  fixed_small:  variance = (sigma'^2 / sigma^2) beta                              [eq. 7]
    (3)  fixed_large:  variance = beta                                                   [sec. 3.2]
    (4)  learned_range: log variance between log (2) and log (3), by the network's second half
         (Nichol and Dhariwal 2021, arXiv:2102.09672, eq. 15)
    (5)  learned: the network's second half is the log variance

The last row adds no noise (Algorithm 2). Betas are those between the grid's own neighbours, so
any grid samples the right posterior.
"""

from dataclasses import dataclass
from itertools import pairwise
from math import log, sqrt
from typing import Any, ClassVar, Literal, TypeAlias

from ddpm_jax._typing import PredictionType
from ddpm_jax.schedulers.betas import SpacedTimesteps
from ddpm_jax.schedulers.fields import Clipping, Thresholding, ZeroTerminalSNR
from ddpm_jax.tables.builder import Level, beta_between
from ddpm_jax.tables.table import Table

VarianceType: TypeAlias = Literal[
    "fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log", "learned", "learned_range"
]

MIN_VARIANCE = 1e-20  # keeps the logarithm finite where a row adds no noise


@dataclass(frozen=True, kw_only=True)
class DDPMScheduler(Thresholding, Clipping, ZeroTerminalSNR, SpacedTimesteps):
    """Ancestral sampling with any subset of the training timesteps.

    Attributes:
        variance_type: equations (2) to (5); the `_log` names are the same values.

    Raises:
        ValueError: at construction, naming every field that is refused.
    """

    stochastic: ClassVar[bool] = True

    prediction_type: PredictionType = "epsilon"
    variance_type: VarianceType = "fixed_small"

    def _write(self, levels: list[Level], dtype: Any) -> Table:
        steps = list(pairwise(levels))
        build = self._builder("x")
        for level, end in steps:
            build.row(*level, x=posterior_mean(level, end) | {"z": self._noise(level, end)})
        return build.build(
            self._prior_scale(levels[0]),
            dtype,
            stochastic=True,
            log_var=[self._bounds(*step) for step in steps] if self._learned else None,
        )

    @property
    def _learned(self) -> bool:
        return self.variance_type in ("learned", "learned_range")

    def _noise(self, level: Level, end: Level) -> float:
        """Standard deviation of the noise; with a learned variance, whether there is any."""
        small, large = posterior_variances(level, end)
        if end.sigma == 0 or large == 0:  # a repeated timestep is not a step
            return 0.0
        if self._learned:
            return 1.0
        return sqrt(large if self.variance_type.startswith("fixed_large") else small)

    def _bounds(self, level: Level, end: Level) -> tuple[float, float]:
        """What -1 and 1 in the network's second half mean, as log variances: (4) or (5)."""
        if self.variance_type == "learned":
            return -1.0, 1.0
        small, large = (log(max(v, MIN_VARIANCE)) for v in posterior_variances(level, end))
        return small, large


def posterior_mean(level: Level, end: Level) -> dict[str, float]:
    """Equation (1): the coefficients of x0 and of x."""
    _, beta = posterior_variances(level, end)
    kept = (end.sigma / level.sigma) ** 2
    return {"x0": end.alpha * beta / level.sigma**2, "x": level.alpha / end.alpha * kept}


def posterior_variances(level: Level, end: Level) -> tuple[float, float]:
    """Equations (2) and (3): the variance of the posterior, and beta."""
    beta = beta_between(level, end)
    return (end.sigma / level.sigma) ** 2 * beta, beta
