"""What every scheduler shares: the fields of the forward process, its levels and its grids.

A scheduler is a frozen, hashable config. It has no state and no loop; `table` writes its run.
"""

# pyright: reportUnknownMemberType=false, reportUnnecessaryIsInstance=false
# jax leaves parts of its types open, and users are not type-checked.

import re
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Array, Float, Int

from ddpm_jax._typing import AnyArray, PredictionType, Timesteps, TimestepSpacing, is_whole
from ddpm_jax.schedulers.configured import Configured
from ddpm_jax.tables.builder import Level, TableBuilder
from ddpm_jax.tables.refine import Refine
from ddpm_jax.tables.schedules import BetaSchedule, NoiseSchedule, noise_schedule
from ddpm_jax.tables.spacing import check_count, timestep_grid
from ddpm_jax.tables.table import Table

MOST_TIMESTEPS = 1_000_000
"""Far more than any model has; a schedule holds several float64 numbers for each."""


@dataclass(frozen=True, kw_only=True)
class Scheduler(Configured):
    """Base of all schedulers; use one of the subclasses.

    Attributes:
        num_train_timesteps: T, the number of timesteps that the network was trained on, at most
            1,000,000.
        beta_start: beta of the first timestep, in (0, 1).
        beta_end: beta of the last timestep, in (0, 1).
        beta_schedule: see `ddpm_jax.noise_schedule`.
        trained_betas: T betas that replace the schedule, or None; kept as a tuple.
        prediction_type: what the network's output is.
        timestep_spacing: see `ddpm_jax.tables.spacing`; "quadratic" is not in diffusers.
        steps_offset: added to the timesteps under "leading" spacing.
    """

    num_train_timesteps: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 0.02
    beta_schedule: BetaSchedule = "linear"
    trained_betas: Sequence[float] | Float[np.ndarray, "T"] | None = None
    prediction_type: PredictionType = "epsilon"
    timestep_spacing: TimestepSpacing = "leading"
    steps_offset: int = 0

    _unchecked: ClassVar[tuple[str, ...]] = ("trained_betas",)

    # What the tests require of a scheduler.
    order: ClassVar[int] = 1  # claimed order of convergence; of the moments if stochastic
    stochastic: ClassVar[bool] = False  # draws noise whatever its options are
    one_row_per_step: ClassVar[bool] = True

    whole_timesteps: ClassVar[bool] = True  # the network takes whole timesteps only

    def __post_init__(self) -> None:
        if self.trained_betas is not None:
            betas = np.asarray(self.trained_betas, np.float64)
            if betas.ndim != 1:
                raise ValueError(
                    f"trained_betas must be a list of numbers, got shape {betas.shape}"
                )
            object.__setattr__(self, "trained_betas", tuple(betas.tolist()))
        super().__post_init__()
        self.noise_schedule  # noqa: B018  raises for betas out of range

    def _faults(self) -> Sequence[str]:
        faults = list(super()._faults())
        if not 1 <= self.num_train_timesteps <= MOST_TIMESTEPS:
            faults.append(
                f"num_train_timesteps must lie in 1..{MOST_TIMESTEPS}, "
                f"got {self.num_train_timesteps}"
            )
        elif not 0 <= self.steps_offset < self.num_train_timesteps:
            faults.append(
                f"steps_offset must lie in 0..{self.num_train_timesteps - 1}, "
                f"got {self.steps_offset}"
            )
        return faults

    @classmethod
    def short_name(cls) -> str:
        """Its name on the command line: "euler-ancestral" of EulerAncestralDiscreteScheduler."""
        words = cls.__name__.removesuffix("Scheduler").removesuffix("Discrete")
        return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", words).lower()

    def table(
        self,
        num_inference_steps: int | None = None,
        *,
        timesteps: Timesteps | None = None,
        start: int = 0,
        dtype: Any = np.float32,
    ) -> Table:
        """The run as a table.

        Args:
            num_inference_steps: number of steps, in 1..num_train_timesteps.
            timesteps: exactly these, strictly descending, instead of the spacing; the Euler family
                takes fractional ones.
            start: leave out this many of the first steps.
            dtype: of the columns; float64 gives them uncast.

        Raises:
            ValueError: neither or bad numbers of steps, or a start past the last step.
        """
        return self._write(self._levels(num_inference_steps, timesteps, start), dtype)

    @abstractmethod
    def _write(self, levels: list[Level], dtype: Any) -> Table:
        """Writes the rows of a method: the hook that a scheduler fills.

        A scheduler whose run takes options of its own (DDIM's eta) overrides `table` with them in
        its signature, and writes there.

        Args:
            levels: those of the steps that are left, and the end point.
            dtype: of the columns, for `TableBuilder.build`.
        """

    def _levels(
        self, num_inference_steps: int | None, timesteps: Timesteps | None, start: int
    ) -> list[Level]:
        """The levels of a run from its arguments: those of its steps, and the end point."""
        levels = self._levels_to_end(self._timesteps(num_inference_steps, timesteps))
        if not is_whole(start):
            raise ValueError(f"start must be a whole number of steps to leave out, got {start!r}")
        if not 0 <= start < len(levels) - 1:
            raise ValueError(f"start must lie in 0..{len(levels) - 2}, got {start}")
        return levels[start:]

    def _builder(self, *registers: str) -> TableBuilder:
        return TableBuilder(registers, self.prediction_type, self._refine())

    def _refine(self) -> Refine | None:
        """What is done to the predicted x0; groups of fields override."""
        return None

    def _prior_scale(self, level: Level) -> float:
        """Standard deviation of x at the first row."""
        return float(np.hypot(level.alpha, level.sigma))

    # The forward process.

    @cached_property
    def noise_schedule(self) -> NoiseSchedule:
        """The schedule of this config, float64."""
        return self._noise_schedule()

    def _noise_schedule(self, *, rescale: bool = False) -> NoiseSchedule:
        return _schedule(
            self.beta_schedule,
            self.num_train_timesteps,
            self.beta_start,
            self.beta_end,
            None if self.trained_betas is None else tuple(self.trained_betas),
            rescale,
        )

    def _training_levels(self) -> tuple[Float[np.ndarray, "T"], Float[np.ndarray, "T"]]:
        """(alpha, sigma) for every training timestep; the Euler family overrides."""
        return self.noise_schedule.alpha, self.noise_schedule.sigma

    def add_noise(
        self,
        x0: Float[AnyArray, "b h w c"],
        noise: Float[AnyArray, "b h w c"],
        timestep: Int[AnyArray, "..."] | int,
    ) -> Float[Array, "b h w c"]:
        """x0 noised to a training timestep, () or (B,) whole numbers in 0..T-1.

        Variance-preserving schedulers give alpha x0 + sigma noise (arXiv:2006.11239, eq. 4), the
        Euler family x0 + sigma noise, as in diffusers.
        """
        from ddpm_jax.sampling import forward

        alpha, sigma = (_gather(column, timestep) for column in self._training_levels())
        return forward.add_noise(x0, noise, alpha, sigma)

    def get_velocity(
        self,
        x0: Float[AnyArray, "b h w c"],
        noise: Float[AnyArray, "b h w c"],
        timestep: Int[AnyArray, "..."] | int,
    ) -> Float[Array, "b h w c"]:
        """The v-prediction target at a training timestep, () or (B,) whole numbers in 0..T-1."""
        from ddpm_jax.sampling import forward

        schedule = self.noise_schedule
        alpha, sigma = (_gather(column, timestep) for column in (schedule.alpha, schedule.sigma))
        return forward.velocity(x0, noise, alpha, sigma)

    # Grids.

    def _timesteps(
        self, num_inference_steps: int | None, timesteps: Timesteps | None
    ) -> Float[np.ndarray, "n"]:
        """The timesteps of a run, from their number or as given."""
        if timesteps is not None:
            if num_inference_steps is not None:
                check_count(num_inference_steps, self.num_train_timesteps)
            given = np.asarray(timesteps)
            if given.dtype.kind not in "iuf":
                raise ValueError(f"timesteps must be numbers, got {timesteps!r}")
            return self._custom_timesteps(given.astype(np.float64))
        if num_inference_steps is None:
            raise ValueError("a table needs num_inference_steps or timesteps, got neither")
        return timestep_grid(
            self.timestep_spacing,
            num_inference_steps,
            self.num_train_timesteps,
            steps_offset=self.steps_offset,
            whole=self.whole_timesteps,
        )

    def _custom_timesteps(self, grid: Float[np.ndarray, "..."]) -> Float[np.ndarray, "n"]:
        last = self.num_train_timesteps - 1
        if grid.ndim != 1 or not len(grid):
            raise ValueError(f"timesteps must be a list of numbers, got shape {grid.shape}")
        if np.any(np.diff(grid) >= 0):
            raise ValueError(f"timesteps must be strictly descending, got {grid.tolist()}")
        if not (grid[-1] >= 0 and grid[0] <= last):
            raise ValueError(f"timesteps must lie in 0..{last}, got {grid[-1]:g} to {grid[0]:g}")
        if self.whole_timesteps and np.any(grid != np.floor(grid)):
            raise ValueError(f"timesteps must be whole numbers, got {grid.tolist()}")
        return grid

    def _levels_to_end(self, timesteps: Float[np.ndarray, "n"]) -> list[Level]:
        """The levels of a grid, and the end point; the Euler family overrides."""
        return [*self._levels_at(timesteps), self._end()]

    def _end(self) -> Level:
        """Where a run ends; by default the data."""
        return Level(timestep=-1, alpha=1.0, sigma=0.0)

    def _levels_at(self, timesteps: Float[np.ndarray, "n"]) -> list[Level]:
        """The variance-preserving levels of whole timesteps."""
        schedule, index = self.noise_schedule, timesteps.astype(int)
        return [
            Level(float(t), float(schedule.alpha[i]), float(schedule.sigma[i]))
            for t, i in zip(timesteps, index, strict=True)
        ]


@lru_cache(maxsize=128)
def _schedule(
    name: BetaSchedule,
    steps: int,
    start: float,
    end: float,
    trained: tuple[float, ...] | None,
    rescale: bool,
) -> NoiseSchedule:
    return noise_schedule(
        name,
        num_train_timesteps=steps,
        beta_start=start,
        beta_end=end,
        trained_betas=trained,
        rescale_betas_zero_snr=rescale,
    )


def _gather(column: Float[np.ndarray, "T"], timestep: Any) -> Array:
    """A column at () or (B,) training timesteps, on device; NaN where traced ones lie outside."""
    import jax
    import jax.core
    import jax.numpy as jnp

    steps = timestep if isinstance(timestep, jax.Array) else np.asarray(timestep)
    if not jnp.issubdtype(steps.dtype, jnp.integer):
        raise ValueError(f"training timesteps must be whole numbers, got {steps.dtype}")
    if not isinstance(steps, jax.core.Tracer):
        host = np.asarray(steps)
        if host.size and not (host.min() >= 0 and host.max() < len(column)):
            raise ValueError(
                f"training timesteps must lie in 0..{len(column) - 1}, "
                f"got {host.min()} to {host.max()}"
            )
    steps = jnp.where(jnp.asarray(steps) < 0, len(column), jnp.asarray(steps))
    values = jnp.asarray(column, jax.dtypes.canonicalize_dtype(np.float64))
    return values.at[steps].get(mode="fill", fill_value=np.nan)
