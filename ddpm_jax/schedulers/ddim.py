r"""DDIM: implicit sampling (Song et al. 2021, arXiv:2010.02502).

From a level (alpha, sigma) to the next one down, (alpha', sigma'):

    (1)  std = eta (sigma' / sigma) sqrt(1 - alpha^2 / alpha'^2)                    [eq. 16]
    (2)  x  <- alpha' x0 + sqrt(sigma'^2 - std^2) eps + std z                       [eq. 12]

eta = 0 is deterministic, eta = 1 is DDPM with fixed_small variance. eps is the network's own, or,
with `use_clipped_model_output`, what the refined x0 implies: (x - alpha x0) / sigma. The last row
adds no noise, as if its eta were 0.
"""

from dataclasses import dataclass
from itertools import pairwise
from math import sqrt
from typing import Any, Unpack

from ddpm_jax._typing import is_number
from ddpm_jax.schedulers.base import GridOptions
from ddpm_jax.schedulers.betas import SpacedTimesteps
from ddpm_jax.schedulers.fields import AlphaToOne, Clipping, Thresholding, ZeroTerminalSNR
from ddpm_jax.tables.builder import Level, beta_between
from ddpm_jax.tables.table import Table


@dataclass(frozen=True, kw_only=True)
class DDIMScheduler(Thresholding, Clipping, ZeroTerminalSNR, AlphaToOne, SpacedTimesteps):
    """Implicit sampling with any subset of the training timesteps.

    Attributes:
        set_alpha_to_one: end at the data (alpha 1); otherwise at the level of timestep 0.

    Raises:
        ValueError: at construction, naming every field that is refused.
    """

    def table(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        num_inference_steps: int | None = None,
        *,
        eta: float = 0.0,
        use_clipped_model_output: bool | None = None,
        **grid: Unpack[GridOptions],
    ) -> Table:
        """The run as a table; one row per step.

        Args:
            num_inference_steps: number of steps, in 1..num_train_timesteps.
            eta: share of DDPM's noise, in [0, 1]; exactly 0 needs no keys.
            use_clipped_model_output: read eps from the refined x0.
            **grid: timesteps, sigmas, grid, start, dtype; see `GridOptions`.

        Raises:
            ValueError: as for any scheduler, or a bad eta.
        """
        if not is_number(eta):
            raise ValueError(
                f"eta must be a number in [0, 1], got {eta!r}; a table is made outside of compiled "
                "programs: to vary eta in one, stack several tables"
            )
        if not 0 <= eta <= 1:
            raise ValueError(f"eta must lie in [0, 1], got {eta!r}")
        direction = "refined_eps" if use_clipped_model_output else "eps"
        return self._write(*self._run(num_inference_steps, grid), eta, direction)

    def _write(
        self, levels: list[Level], dtype: Any, eta: float = 0.0, direction: str = "eps"
    ) -> Table:
        build, last = self._builder("x"), len(levels) - 2
        for i, (level, end) in enumerate(pairwise(levels)):
            if level == end and i < last:  # "quadratic" repeats timesteps; refining is not a step
                build.row(*level)
                continue
            std = ddim_std(level, end, eta) if i < last else 0.0
            x = {"x0": end.alpha, direction: sqrt(end.sigma**2 - std**2), "z": std}  # (2)
            build.row(*level, x=x)
        return build.build(self._prior_scale(levels[0]), dtype, stochastic=eta > 0)


def ddim_std(level: Level, end: Level, eta: float) -> float:
    """Equation (1): the standard deviation of the noise on the way to a lower level."""
    return eta * end.sigma / level.sigma * sqrt(beta_between(level, end)) if eta else 0.0
