r"""RePaint: inpainting that goes back up and down again (Lugmayr et al. 2022, arXiv:2201.09865).

A step goes down by DDIM's rule (arXiv:2010.02502, eq. 12) from a level (alpha, sigma) to the next,
(alpha', sigma'). At some steps the run then jumps up to an earlier level (alpha", sigma"), by the
forward process (eq. 1), so that the new part of the image gets to fit what is known:

    (1)  std = eta (sigma' / sigma) sqrt(1 - alpha^2 / alpha'^2)
    (2)  x  <- alpha' x0 + sqrt(sigma'^2 - std^2) eps + std z                    [eq. 8b, by DDIM]
    (3)  x  <- (alpha" / alpha') x + sqrt(sigma"^2 - (alpha" sigma' / alpha')^2) z       [eq. 1]

(3) uses no output of the network, so it is folded into the row of (2): one draw of noise has the
variance of both. The known part of the image is no part of a table: `ddpm_jax.guidance.known` puts
it back before each evaluation, at the row's level (eq. 8a).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any, ClassVar, Unpack

from ddpm_jax._typing import AnyPredictionType, TimestepSpacing, is_whole
from ddpm_jax.schedulers.base import GridOptions
from ddpm_jax.schedulers.betas import BetaScheduler
from ddpm_jax.schedulers.ddim import ddim_std
from ddpm_jax.tables.builder import Level
from ddpm_jax.tables.refine import Clip, Refine
from ddpm_jax.tables.table import Table

JUMP_LENGTH, JUMP_N_SAMPLE = 10, 10
"""The paper's, for 250 steps."""


@dataclass(frozen=True, kw_only=True)
class RePaintScheduler(BetaScheduler):
    """Inpainting with a network that predicts eps and was not trained for it.

    Attributes:
        eta: share of DDPM's noise, in [0, 1].
        clip_sample: clip the predicted x0 to [-1, 1].
    """

    order: ClassVar[int] = 0  # jumps begin again
    stochastic: ClassVar[bool] = True
    one_row_per_step: ClassVar[bool] = False

    # diffusers' class has no such field
    prediction_type: ClassVar[AnyPredictionType] = "epsilon"  # pyright: ignore[reportIncompatibleVariableOverride]
    eta: float = 0.0
    clip_sample: bool = True

    def _faults(self) -> Sequence[str]:
        faults = list(super()._faults())
        if not 0 <= self.eta <= 1:
            faults.append(f"eta must lie in [0, 1], got {self.eta}")
        return faults

    def table(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        num_inference_steps: int | None = None,
        *,
        jump_length: int = JUMP_LENGTH,
        jump_n_sample: int = JUMP_N_SAMPLE,
        **grid: Unpack[GridOptions],
    ) -> Table:
        """The run as a table.

        Args:
            num_inference_steps: number of steps, in 1..num_train_timesteps; the paper's are 250.
            jump_length: steps that a jump goes up, at least 1, the paper's j. After every so many
                steps, counted from the end, there are jumps; a run of no more steps has none.
            jump_n_sample: times that each of these stretches is run, at least 1, the paper's r; 1
                is no jump.
            **grid: timesteps, sigmas, grid, start, dtype; see `GridOptions`.

        Raises:
            ValueError: as for any scheduler, or a bad jump_length or jump_n_sample.
        """
        for name, count in (("jump_length", jump_length), ("jump_n_sample", jump_n_sample)):
            if not is_whole(count) or count < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, got {count!r}")
        return self._write(*self._run(num_inference_steps, grid), jump_length, jump_n_sample)

    def _write(
        self,
        levels: list[Level],
        dtype: Any,
        jump_length: int = JUMP_LENGTH,
        jump_n_sample: int = JUMP_N_SAMPLE,
    ) -> Table:
        build, count = self._builder("x"), len(levels) - 1
        for i, up in _visits(count, jump_length, jump_n_sample):
            level, down, raised = levels[i], levels[i + 1], levels[i + 1 - up]
            std = ddim_std(level, down, self.eta) if i + 1 - up < count else 0.0
            lift = raised.alpha / down.alpha
            added = max(raised.sigma**2 - (lift * down.sigma) ** 2, 0.0) if up else 0.0
            x = {
                "x0": raised.alpha,
                "eps": lift * sqrt(down.sigma**2 - std**2),
                "z": sqrt((lift * std) ** 2 + added),
            }
            build.row(*level, x=x)
        return build.build(self._prior_scale(levels[0]), dtype, stochastic=True)

    def _refine(self) -> Refine | None:
        return Clip(limit=1.0) if self.clip_sample else None

    def _spacing(self) -> tuple[TimestepSpacing, int]:
        return "leading", 0


def _visits(count: int, length: int, times: int) -> Iterator[tuple[int, int]]:
    """(i, up) for each evaluation: at level i, then down to i + 1, then up again by `up` levels."""
    jumps = dict.fromkeys(range(0, count - length, length), times - 1)  # by the steps that are left
    left = count - 1
    while left >= 0:
        up = length if jumps.get(left, 0) else 0
        if up:
            jumps[left] -= 1
        yield count - 1 - left, up
        left += up - 1
