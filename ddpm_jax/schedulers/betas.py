r"""Schedulers whose levels come from betas.

The forward process is that of Ho et al. 2020, arXiv:2006.11239. Levels preserve variance,
alpha^2 + sigma^2 = 1. Between training timesteps the logarithm of

    (1)  sigma / alpha = sqrt((1 - alpha_bar_t) / alpha_bar_t)

is linear in the timestep.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import ClassVar

import numpy as np
from jaxtyping import Array, Float, Int

from ddpm_jax._typing import AnyArray, AnyPredictionType, TimestepSpacing
from ddpm_jax.schedulers.base import Scheduler, gather
from ddpm_jax.tables.builder import Level
from ddpm_jax.tables.readings import Reading, reading
from ddpm_jax.tables.schedules import BetaSchedule, NoiseSchedule, noise_schedule
from ddpm_jax.tables.spacing import timestep_grid


@dataclass(frozen=True, kw_only=True)
class BetaScheduler(Scheduler):
    """Base of the schedulers whose levels come from betas.

    Attributes:
        beta_start: beta of the first timestep, in (0, 1).
        beta_end: beta of the last timestep, in (0, 1).
        beta_schedule: see `ddpm_jax.noise_schedule`.
        trained_betas: T betas that replace the schedule, or None; kept as a tuple.
        prediction_type: what the network's output is; "flow_prediction" only with flow levels.
    """

    beta_start: float = 1e-4
    beta_end: float = 0.02
    beta_schedule: BetaSchedule = "linear"
    trained_betas: Sequence[float] | Float[np.ndarray, "T"] | None = None
    prediction_type: AnyPredictionType = "epsilon"

    _unchecked: ClassVar[tuple[str, ...]] = ("trained_betas",)

    def __post_init__(self) -> None:
        if self.trained_betas is not None:
            try:
                betas = np.asarray(self.trained_betas, np.float64)
            except (TypeError, ValueError):
                betas = np.asarray(np.nan)
            if betas.ndim != 1:
                raise ValueError(
                    f"trained_betas must be a list of numbers, got {self.trained_betas!r:.80}"
                )
            object.__setattr__(self, "trained_betas", tuple(betas.tolist()))
        super().__post_init__()
        self.noise_schedule  # noqa: B018  raises for betas out of range

    def _faults(self) -> Sequence[str]:
        faults = list(super()._faults())
        if self.prediction_type == "flow_prediction" and not self._flow_levels():
            faults.append(
                'prediction_type "flow_prediction" needs flow levels, alpha = 1 - sigma, '
                "which use_flow_sigmas gives to the schedulers that have it"
            )
        return faults

    def _flow_levels(self) -> bool:
        """Whether levels lie on straight paths, alpha = 1 - sigma; a group of fields overrides."""
        return False

    def _reading(self, alpha: float, sigma: float) -> Reading:
        return reading(self.prediction_type, alpha, sigma)

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
        return self.noise_schedule.alpha, self.noise_schedule.sigma

    def get_velocity(
        self,
        x0: Float[AnyArray, "b h w c"],
        noise: Float[AnyArray, "b h w c"],
        timestep: Int[AnyArray, "..."] | int,
    ) -> Float[Array, "b h w c"]:
        """The target of v_prediction, or of a flow's velocity where levels are those of a flow.

        At a training timestep, () or (B,) whole numbers in 0..T-1.
        """
        from ddpm_jax.sampling import forward

        alpha, sigma = (gather(column, timestep) for column in self._velocity_weights())
        return forward.velocity(x0, noise, alpha, sigma)

    def _velocity_weights(self) -> tuple[Float[np.ndarray, "T"], Float[np.ndarray, "T"]]:
        """The weights of eps and of -x0 in the velocity, for every training timestep."""
        return self.noise_schedule.alpha, self.noise_schedule.sigma

    # Grids.

    def _levels_of_count(self, count: int) -> list[Level]:
        return self._levels_of_timesteps(self._timestep_grid(count))

    def _timestep_grid(self, count: int) -> Float[np.ndarray, "n"]:
        """The timesteps of a number of steps."""
        spacing, offset = self._spacing()
        total = self.num_train_timesteps
        return timestep_grid(spacing, count, total, steps_offset=offset, whole=self.whole_timesteps)

    def _spacing(self) -> tuple[TimestepSpacing, int]:
        """How the timesteps are spaced, and their offset; a group of fields overrides."""
        return "linspace", 0

    def _levels_of_timesteps(self, timesteps: Float[np.ndarray, "n"]) -> list[Level]:
        return [*self._levels_at(timesteps), self._end()]

    def _levels_at(self, timesteps: Float[np.ndarray, "n"]) -> list[Level]:
        """The variance-preserving levels of timesteps."""
        schedule, index = self.noise_schedule, timesteps.astype(int)
        if np.any(timesteps != index):
            logs = np.interp(timesteps, np.arange(len(schedule)), np.log(schedule.noise_ratio))
            return self._paired(timesteps, np.exp(logs))
        return [
            Level(float(t), float(schedule.alpha[i]), float(schedule.sigma[i]))
            for t, i in zip(timesteps, index, strict=True)
        ]

    def _end(self) -> Level:
        """Where a run ends; by default the data."""
        return Level(timestep=-1, alpha=1.0, sigma=0.0)

    def _levels_of_sigmas(self, sigmas: Float[np.ndarray, "n"]) -> list[Level]:
        timesteps = np.append(self._timestep_of(sigmas[:-1]), self._end_timestep(sigmas))
        return self._paired(timesteps, sigmas)

    def _paired(
        self, timesteps: Float[np.ndarray, "n"], sigmas: Float[np.ndarray, "n"]
    ) -> list[Level]:
        """The levels of noise levels (1), with the timesteps that the network is told."""
        alphas = 1 / np.hypot(1.0, sigmas)
        return [
            Level(float(t), float(alpha), float(alpha * sigma))
            for t, alpha, sigma in zip(timesteps, alphas, sigmas, strict=True)
        ]

    def _largest_sigma(self) -> float:
        return float(self.noise_schedule.noise_ratio[-1])

    def _smallest_sigma(self) -> float:
        return float(self.noise_schedule.noise_ratio[0])

    def _timestep_of(self, sigmas: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
        """The fractional timesteps of noise levels (1); beyond the schedule, its ends."""
        ratio = self.noise_schedule.noise_ratio
        # 1e-10 keeps the logarithm finite at sigma 0; it lies below every schedule's first sigma
        logs = np.log(np.maximum(sigmas, 1e-10))
        found = np.interp(logs, np.log(ratio), np.arange(len(ratio)))
        # A finite last sigma of zero terminal SNR may lie below the ones before it.
        return np.where(sigmas >= ratio[-1], len(ratio) - 1.0, found)


@dataclass(frozen=True, kw_only=True)
class SpacedTimesteps(BetaScheduler):
    """Chooses how the timesteps are spaced.

    Attributes:
        timestep_spacing: see `ddpm_jax.tables.spacing`; "quadratic" is not in diffusers.
        steps_offset: added to the timesteps under "leading" spacing.
    """

    timestep_spacing: TimestepSpacing = "leading"
    steps_offset: int = 0

    def _faults(self) -> Sequence[str]:
        faults = list(super()._faults())
        if not 0 <= self.steps_offset < max(self.num_train_timesteps, 1):
            faults.append(
                f"steps_offset must lie in 0..{self.num_train_timesteps - 1}, "
                f"got {self.steps_offset}"
            )
        return faults

    def _spacing(self) -> tuple[TimestepSpacing, int]:
        return self.timestep_spacing, self.steps_offset


@lru_cache(maxsize=16)  # of a million timesteps each is 24 MB
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
