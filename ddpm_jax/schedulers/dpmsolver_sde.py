r"""DPM-Solver++(2S) with noise, as in k-diffusion (Lu et al. 2022, arXiv:2211.01095, in the sigma
of Karras et al. 2022, arXiv:2206.00364, where alpha is 1).

From sigma to the next one down, sigma', by way of sigma_m = sqrt(sigma sigma'). A part of a step,
to a sigma_p, goes to sigma_p^2 / sigma, and noise brings it back up to sigma_p
(`ddpm_jax.schedulers.euler_ancestral`, equations 1 and 2):

    (1)  down_p = sigma_p^2 / sigma,   up_p^2 = sigma_p^2 - down_p^2
    (2)  x_m = x0 + down_m eps + up_m z_m
    (3)  x <- (down' / sigma) x + (1 - down' / sigma) x0_m + up' z',
         x0_m being x0 at (x_m, sigma_m)

Both noises are those of one Brownian motion W(sigma), each scaled to unit variance, as
z' = (W(sigma) - W(sigma')) / sqrt(sigma - sigma'). The paths to sigma_m are a part of those to
sigma', so with a new z, independent of z_m,

    (4)  z' = r z_m + sqrt(1 - r^2) z,   r^2 = (sigma - sigma_m) / (sigma - sigma')

and those of different steps are independent. (3) has z_m from x_m, which is all that is left of it:

    (5)  up_m z_m = x_m - (x0 + down_m eps)

A step to sigma' = 0 is x <- x0. N steps take 2 N - 1 evaluations. The last adds no noise.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf, sqrt
from typing import Any, ClassVar, Unpack

from ddpm_jax._typing import is_number
from ddpm_jax.schedulers.base import GridOptions
from ddpm_jax.schedulers.euler_ancestral import down_and_up
from ddpm_jax.schedulers.kdpm2 import MidpointScheduler
from ddpm_jax.tables.builder import Level, TableBuilder
from ddpm_jax.tables.table import Table


@dataclass(frozen=True, kw_only=True)
class DPMSolverSDEScheduler(MidpointScheduler):
    """DPM-Solver++(2S) with noise; stochastic, x0 is never clipped.

    Attributes:
        noise_sampler_seed: only None: the noise is drawn from the key of a run.

    Raises:
        ValueError: at construction, naming every field that is refused.
    """

    stochastic: ClassVar[bool] = True

    noise_sampler_seed: int | None = None

    def _faults(self) -> Sequence[str]:
        faults = list(super()._faults())
        if self.noise_sampler_seed is not None:
            faults.append(
                "noise_sampler_seed is not supported: noise is drawn from the key of a run, "
                f"got {self.noise_sampler_seed}"
            )
        return faults

    def table(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        num_inference_steps: int | None = None,
        *,
        s_noise: float = 1.0,
        **grid: Unpack[GridOptions],
    ) -> Table:
        """The run as a table; two rows per step, but one for the last.

        Args:
            num_inference_steps: number of steps, in 1..num_train_timesteps.
            s_noise: scale of the noise in (2) and (3), >= 0; exactly 0 needs no keys.
            **grid: timesteps, sigmas, start, dtype; see `GridOptions`.

        Raises:
            ValueError: as for any scheduler, or a bad s_noise.
        """
        if not is_number(s_noise) or not 0 <= s_noise < inf:
            raise ValueError(f"s_noise must be a number >= 0, got {s_noise!r}")
        return self._write(*self._run(num_inference_steps, grid), s_noise)

    def _write(self, levels: list[Level], dtype: Any, s_noise: float = 1.0) -> Table:
        build, last = self._builder("x", "rest"), len(levels) - 2
        for i, (level, end) in enumerate(pairwise(levels)):
            if end.sigma == 0:
                build.row(*level, x={"x0": 1.0})
            else:
                middle = self._midpoint(level, end.sigma)
                _rows(build, level, middle, end.sigma, None if i == last else s_noise)
        prior = self._prior_scale(levels[0])
        return build.build(prior, dtype, stochastic=s_noise > 0)


def _rows(
    build: TableBuilder, level: Level, middle: Level, sigma: float, s_noise: float | None
) -> None:
    """One step by (2) and (3) to a sigma above 0; straight there if `s_noise` is None."""
    down_m, up_m = down_and_up(level.sigma, middle.sigma)
    down, up = down_and_up(level.sigma, sigma)
    if s_noise is None:
        s_noise, down_m, up_m, down, up = 0.0, middle.sigma, 0.0, sigma, 0.0
    shared, new = 0.0, 0.0  # of z' in (4); a level may be repeated
    if up_m > 0:
        length = level.sigma - sigma
        shared = sqrt((level.sigma - middle.sigma) / length) * up / up_m  # of up_m z_m
        new = sqrt((middle.sigma - sigma) / length) * up
    kept = down / level.sigma
    build.row(
        *level,
        x={"x0": 1.0, "eps": down_m, "z": s_noise * up_m},  # (2)
        rest={"x": kept, "x0": -shared, "eps": -shared * down_m},  # of (3), with (5)
    )
    x = {"rest": 1.0, "x": shared, "x0": 1 - kept, "z": s_noise * new}  # (3)
    build.row(*middle, x=x)
