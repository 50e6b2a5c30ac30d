"""What every scheduler shares: the fields of the forward process, configs, grids and checks.

A scheduler is a frozen, hashable config. It has no state and no loop; `table` writes its run.
"""

# pyright: reportUnknownMemberType=false, reportUnnecessaryIsInstance=false
# jax leaves parts of its types open, and users are not type-checked.

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, get_args, get_origin, get_type_hints

import numpy as np
from jaxtyping import Array, Float, Int

from ddpm_jax import hub
from ddpm_jax._typing import AnyArray, PredictionType, Timesteps, TimestepSpacing
from ddpm_jax.builder import Level
from ddpm_jax.config import Config, read_json, transfer, write_json
from ddpm_jax.schedules import BetaSchedule, NoiseSchedule, noise_schedule
from ddpm_jax.spacing import check_count, timestep_grid

SchedulerT = TypeVar("SchedulerT", bound="Scheduler")
CONFIG_NAME = "scheduler_config.json"


@dataclass(frozen=True, kw_only=True)
class Scheduler:
    """Base of all schedulers; use one of the subclasses.

    Attributes:
        num_train_timesteps: T, the number of timesteps that the network was trained on.
        beta_start: beta of the first timestep, in (0, 1).
        beta_end: beta of the last timestep, in (0, 1).
        beta_schedule: see `ddpm_jax.noise_schedule`.
        trained_betas: T betas that replace the schedule, or None.
        prediction_type: what the network's output is.
        timestep_spacing: see `ddpm_jax.spacing`; "quadratic" is not in diffusers.
        steps_offset: added to the timesteps under "leading" spacing.
    """

    num_train_timesteps: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 0.02
    beta_schedule: BetaSchedule = "linear"
    trained_betas: tuple[float, ...] | None = None
    prediction_type: PredictionType = "epsilon"
    timestep_spacing: TimestepSpacing = "leading"
    steps_offset: int = 0

    whole_timesteps: ClassVar[bool] = True  # the network is told whole numbers only

    _explicit: ClassVar[frozenset[str]] = frozenset()  # set for each instance in __new__
    _hidden: ClassVar[Mapping[str, Any]] = {}

    def __new__(cls: type[SchedulerT], **given: Any) -> SchedulerT:
        """Notes which fields were given; they, and no defaults, go over to other schedulers."""
        self = object.__new__(cls)
        object.__setattr__(self, "_explicit", frozenset(given))
        object.__setattr__(self, "_hidden", {})
        return self

    def __post_init__(self) -> None:
        if self.trained_betas is not None:
            betas = np.asarray(self.trained_betas, np.float64)
            object.__setattr__(self, "trained_betas", tuple(betas.ravel().tolist()))
        faults = self._choice_faults() or list(self._faults())
        if faults:
            raise ValueError(f"{type(self).__name__}: {'; '.join(faults)}")
        self.noise_schedule  # noqa: B018  raises for betas out of range

    def _choice_faults(self) -> list[str]:
        """Fields whose value is not among the listed ones, or not of the field's type."""
        faults: list[str] = []
        for name, kind in _field_types(type(self)).items():
            value = getattr(self, name)
            if get_origin(kind) is Literal and value not in get_args(kind):
                choices = ", ".join(map(str, get_args(kind)))
                faults.append(f"{name} must be one of {choices}, got {value!r}")
            elif kind is bool and not isinstance(value, bool):
                faults.append(f"{name} must be True or False, got {value!r}")
            elif kind is int and (isinstance(value, bool) or not isinstance(value, int)):
                faults.append(f"{name} must be a whole number, got {value!r}")
            elif kind is float and (isinstance(value, bool) or not isinstance(value, int | float)):
                faults.append(f"{name} must be a number, got {value!r}")
        return faults

    def _faults(self) -> Sequence[str]:
        """Faults of this config beyond single choices; subclasses extend."""
        faults: list[str] = []
        if self.num_train_timesteps < 1:
            faults.append(f"num_train_timesteps must be at least 1, got {self.num_train_timesteps}")
        elif not 0 <= self.steps_offset < self.num_train_timesteps:
            faults.append(
                f"steps_offset must lie in 0..{self.num_train_timesteps - 1}, "
                f"got {self.steps_offset}"
            )
        if getattr(self, "rescale_betas_zero_snr", False) and self.prediction_type == "epsilon":
            faults.append(
                "rescale_betas_zero_snr leaves no signal at the last timestep, where "
                'prediction_type "epsilon" says nothing about x0; use "v_prediction" or "sample"'
            )
        return faults

    # The forward process.

    @cached_property
    def noise_schedule(self) -> NoiseSchedule:
        """The schedule of this config, float64."""
        return self._noise_schedule()

    def _noise_schedule(self) -> NoiseSchedule:
        return _schedule(
            self.beta_schedule,
            self.num_train_timesteps,
            self.beta_start,
            self.beta_end,
            self.trained_betas,
            getattr(self, "rescale_betas_zero_snr", False),
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
        from ddpm_jax import forward

        alpha, sigma = (_gather(column, timestep) for column in self._training_levels())
        return forward.add_noise(x0, noise, alpha, sigma)

    def get_velocity(
        self,
        x0: Float[AnyArray, "b h w c"],
        noise: Float[AnyArray, "b h w c"],
        timestep: Int[AnyArray, "..."] | int,
    ) -> Float[Array, "b h w c"]:
        """The v-prediction target at a training timestep, () or (B,) whole numbers in 0..T-1."""
        from ddpm_jax import forward

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
            return self._custom_timesteps(np.asarray(timesteps, np.float64))
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

    @staticmethod
    def _from_start(grid: Float[np.ndarray, "n"], start: int) -> Float[np.ndarray, "m"]:
        """Leaves out the first steps."""
        if isinstance(start, bool) or not isinstance(start, int | np.integer):
            raise ValueError(f"start must be a whole number of steps to leave out, got {start!r}")
        if not 0 <= start < len(grid):
            raise ValueError(f"start must lie in 0..{len(grid) - 1}, got {start}")
        return grid[start:]

    def _levels(self, timesteps: Float[np.ndarray, "n"]) -> list[Level]:
        """The variance-preserving levels of whole timesteps."""
        schedule, index = self.noise_schedule, timesteps.astype(int)
        return [
            Level(float(t), float(schedule.alpha[i]), float(schedule.sigma[i]))
            for t, i in zip(timesteps, index, strict=True)
        ]

    # Configs.

    @property
    def config(self) -> Config:
        """The fields, with what the transfer rules need; read-only."""
        return Config(
            {field.name: getattr(self, field.name) for field in fields(self)},
            class_name=type(self).__name__,
            hidden=self._hidden,
            explicit=self._explicit,
        )

    @classmethod
    def from_config(
        cls: type[SchedulerT], config: Mapping[str, Any], **overrides: Any
    ) -> SchedulerT:
        """Makes this scheduler from another's config, by diffusers' transfer rules.

        Args:
            config: `.config` of any scheduler, of one in diffusers, or a JSON file's content.
            **overrides: fields of this class that replace the config's.

        Raises:
            ValueError: an override that is no field of this class, or a value that is refused.
        """
        accepted = [field.name for field in fields(cls)]
        unknown = sorted(set(overrides) - set(accepted))
        if unknown:
            raise ValueError(
                f"{cls.__name__} has no {', '.join(unknown)}; its fields are {', '.join(accepted)}"
            )
        taken, hidden = transfer(config, accepted, cls.__name__)
        self = cls(**(taken | overrides))
        object.__setattr__(self, "_hidden", hidden)
        return self

    @classmethod
    def from_pretrained(
        cls: type[SchedulerT],
        name: str | os.PathLike[str],
        *,
        subfolder: str | None = None,
        revision: str | None = None,
        variant: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
    ) -> SchedulerT:
        """Reads `scheduler_config.json` of a pipeline or scheduler folder, of any scheduler class.

        Args:
            name: a local folder, a bundled name ("digits"), or a hub id.
            subfolder: the folder within it; found by itself where the layout is diffusers'.
            revision: branch, tag or commit on the hub.
            variant: taken as in other components; a scheduler has no weights to choose from.
            cache_dir: where downloads are kept.
            token: a hub token.
            local_files_only: never ask the network.

        Raises:
            ValueError: no such config, or one with a value that is refused.
        """
        folder = hub.component(
            name,
            "scheduler",
            subfolder=subfolder,
            revision=revision,
            variant=variant,
            cache_dir=cache_dir,
            token=token,
            local_files_only=local_files_only,
        )
        return cls.from_config(read_json(folder / CONFIG_NAME))

    def save_pretrained(self, path: str | os.PathLike[str]) -> None:
        """Writes `scheduler_config.json` into a folder, which is made if it is missing."""
        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        header = {"_class_name": type(self).__name__}
        write_json(folder / CONFIG_NAME, {**header, **self._hidden, **self.config})


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


@lru_cache(maxsize=128)
def _field_types(cls: type[Scheduler]) -> dict[str, Any]:
    hints = get_type_hints(cls)
    return {field.name: hints[field.name] for field in fields(cls)}


def _gather(column: Float[np.ndarray, "T"], timestep: Any) -> Array:
    """A column's values at () or (B,) training timesteps, on device."""
    import jax
    import jax.numpy as jnp

    if not isinstance(timestep, jax.Array):
        host = np.asarray(timestep)
        if not np.issubdtype(host.dtype, np.integer):
            raise ValueError(f"training timesteps must be whole numbers, got {host.dtype}")
        if host.size and not (host.min() >= 0 and host.max() < len(column)):
            raise ValueError(
                f"training timesteps must lie in 0..{len(column) - 1}, "
                f"got {host.min()} to {host.max()}"
            )
    elif not jnp.issubdtype(timestep.dtype, jnp.integer):
        raise ValueError(f"training timesteps must be whole numbers, got {timestep.dtype}")
    return jnp.asarray(column, jax.dtypes.canonicalize_dtype(np.float64))[jnp.asarray(timestep)]
