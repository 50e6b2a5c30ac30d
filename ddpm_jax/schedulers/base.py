"""What every scheduler shares: its run as a table, from a number of steps or a grid of one's own.

A scheduler is a frozen, hashable config. It has no state and no loop; `table` writes its run.
"""

# pyright: reportUnknownMemberType=false, reportUnnecessaryIsInstance=false
# jax leaves parts of its types open, and users are not type-checked.

import functools
import re
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, NamedTuple, ParamSpec, TypedDict, TypeVar, Unpack

import numpy as np
from jaxtyping import Array, Float, Int

from ddpm_jax._typing import AnyArray, Numbers, is_whole
from ddpm_jax.schedulers.configured import Configured
from ddpm_jax.tables.builder import Level, TableBuilder
from ddpm_jax.tables.grids import GridName, named_grid
from ddpm_jax.tables.readings import Reading
from ddpm_jax.tables.refine import Refine
from ddpm_jax.tables.spacing import check_count
from ddpm_jax.tables.table import Table

SchedulerT = TypeVar("SchedulerT", bound="Scheduler")
P = ParamSpec("P")

MOST_TIMESTEPS = 1_000_000
"""Far more than any model has; a schedule holds several float64 numbers for each."""
MOST_NOISE = 1e30
"""The largest sigma / alpha: float32 must hold it, and float64 its powers."""

BEYOND = 1.01
"""How far a given noise level may lie above the largest of training: published ones are rounded."""


NO_NAMED_GRID = (
    "grid is of noise levels sigma / alpha, which have no end here, for a run begins at alpha 0: "
    "give sigmas"
)

LEVEL_OPTIONS = ("timesteps", "sigmas", "grid")
"""The options that choose the levels; at most one may be given."""


class GridOptions(TypedDict, total=False):
    """Options of every scheduler's `table`."""

    timesteps: Numbers | None
    """Exactly these, strictly descending, instead of the spacing. May be fractional where the
    levels lie between training timesteps too (the Euler and DPM-Solver families). Schedulers that
    walk up, from images to noise, take ascending ones, and so of `sigmas`."""
    sigmas: Numbers | None
    """Exactly these noise levels sigma / alpha, strictly descending, instead of the spacing: one
    more than there are steps, for the last is where the run ends. 0 is the data. Each timestep is
    that of its level, usually fractional. On the straight paths of flow matching, and in IPNDM:
    sigma itself."""
    grid: GridName | None
    """Such levels by name: "rho", "log-snr", "dmn", or published ones; see
    `ddpm_jax.tables.grids`."""
    start: int
    """Leave out this many of the first steps."""
    dtype: Any
    """Of the columns; the default is float32, and float64 gives them uncast."""


def within_range(table: Callable[P, Table]) -> Callable[P, Table]:
    """`table` with a ValueError where the numbers of a config are too large or small for floats."""

    @functools.wraps(table)
    def checked(*args: P.args, **options: P.kwargs) -> Table:
        try:
            return table(*args, **options)
        except ArithmeticError as error:
            raise ValueError(
                f"{type(args[0]).__name__}: the numbers of its config are too large, too small or "
                f"too close to each other for a table: {error}"
            ) from error

    return checked


class Run(NamedTuple):
    """What a scheduler writes a table from.

    Attributes:
        levels: those of the steps that are left, and the end point.
        dtype: of the columns, for `TableBuilder.build`.
    """

    levels: list[Level]
    dtype: Any


@dataclass(frozen=True, kw_only=True)
class Scheduler(Configured):
    """Base of all schedulers; use one of the subclasses.

    Attributes:
        num_train_timesteps: T, the number of timesteps that the network was trained on, at most
            1,000,000.
    """

    num_train_timesteps: int = 1000

    # What the tests require of a scheduler.
    order: ClassVar[int] = 1  # of convergence, as claimed; of the moments if stochastic; 0: none
    stochastic: ClassVar[bool] = False  # draws noise whatever its options are
    one_row_per_step: ClassVar[bool] = True

    ascends: ClassVar[bool] = False  # from images to noise, and so do the grids it is given
    whole_timesteps: ClassVar[bool] = True  # levels exist at whole timesteps only

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "table" in vars(cls):
            cls.table = within_range(cls.table)

    def _faults(self) -> Sequence[str]:
        faults = list(super()._faults())
        if not 1 <= self.num_train_timesteps <= MOST_TIMESTEPS:
            faults.append(
                f"num_train_timesteps must lie in 1..{MOST_TIMESTEPS}, "
                f"got {self.num_train_timesteps}"
            )
        return faults

    @classmethod
    def short_name(cls) -> str:
        """Its name on the command line: "euler-ancestral" of EulerAncestralDiscreteScheduler."""
        words = cls.__name__.removesuffix("Scheduler").removesuffix("Discrete")
        bounds = r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=EDM)(?=DPM)"
        return re.sub(bounds, "-", words).lower()

    @classmethod
    def trailing(cls: type[SchedulerT], config: Mapping[str, Any]) -> SchedulerT:
        """From another's config, with runs from the last timestep on if the spacing is a choice."""
        names = {field.name for field in fields(cls)} - cls.unread
        spaced = {"timestep_spacing": "trailing"} if "timestep_spacing" in names else {}
        return cls.from_config(config, **spaced)

    @within_range
    def table(self, num_inference_steps: int | None = None, **grid: Unpack[GridOptions]) -> Table:
        """The run as a table.

        Args:
            num_inference_steps: number of steps, in 1..num_train_timesteps. Beside `timesteps` it
                serves only where a method needs a nominal stride.
            **grid: timesteps, sigmas, grid, start, dtype; see `GridOptions`.

        Raises:
            TypeError: an unknown option.
            ValueError: none of num_inference_steps, timesteps and sigmas, bad numbers in them, or
                a start past the last step.
        """
        return self._write(*self._run(num_inference_steps, grid))

    @abstractmethod
    def _write(self, levels: list[Level], dtype: Any) -> Table:
        """Writes the rows of a method: the hook that a scheduler fills.

        A scheduler whose run takes options of its own (DDIM's eta) overrides `table` with them in
        its signature, and writes there what `_run` gives. (pyright does not see that this is
        compatible: it takes the type of `**grid` for that of each new option.)

        Args:
            levels: those of the steps that are left, and the end point.
            dtype: of the columns, for `TableBuilder.build`.
        """

    def _builder(self, *registers: str) -> TableBuilder:
        return TableBuilder(registers, self._reading, self._refine())

    @abstractmethod
    def _reading(self, alpha: float, sigma: float) -> Reading:
        """What the network is given at a level, and how its output is read."""

    def _refine(self) -> Refine | None:
        """What is done to the predicted x0; groups of fields override."""
        return None

    def _prior_scale(self, level: Level) -> float:
        """Standard deviation of x at the first row."""
        return float(np.hypot(level.alpha, level.sigma))

    # Grids.

    def _run(
        self,
        num_inference_steps: int | None,
        grid: GridOptions,
        levels: list[Level] | None = None,
    ) -> Run:
        """The levels and the dtype of a run, from the arguments of `table`, or given levels."""
        unknown = sorted(set(grid) - set(GridOptions.__annotations__))
        if unknown:
            raise TypeError(f"table() got an unexpected keyword argument {unknown[0]!r}")
        levels = self._levels(num_inference_steps, grid) if levels is None else levels
        start = grid.get("start", 0)
        if not is_whole(start):
            raise ValueError(f"start must be a whole number of steps to leave out, got {start!r}")
        if not 0 <= start < len(levels) - 1:
            raise ValueError(f"start must lie in 0..{len(levels) - 2}, got {start}")
        noised = levels[1:] if self.ascends else levels[:-1]  # the other end may be clean
        clean = levels[0] if self.ascends else levels[-1]
        lost = [level for level in noised if not (level.sigma > 0 and _in_range(level))]
        lost += [] if _in_range(clean) else [clean]
        if lost:
            raise ValueError(
                f"{type(self).__name__}: at timestep {lost[0].timestep:g} the noise level is "
                f"sigma = {lost[0].sigma:g} beside alpha = {lost[0].alpha:g}, which is out of "
                "range: the betas or sigmas of the config are too large or too small"
            )
        return Run(levels[start:], grid.get("dtype", np.float32))

    def _levels(self, num_inference_steps: int | None, grid: GridOptions) -> list[Level]:
        """The levels of a whole run, and the end point."""
        timesteps, sigmas, name = (grid.get(option) for option in LEVEL_OPTIONS)
        if num_inference_steps is not None:
            check_count(num_inference_steps, self.num_train_timesteps)
        given = [option for option in LEVEL_OPTIONS if grid.get(option) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} both choose the levels: give one of them")
        if timesteps is not None:
            chosen = self._checked_timesteps(_descending("timesteps", timesteps))
            return self._levels_of_timesteps(chosen)
        if sigmas is not None:
            return self._levels_of_sigmas(self._checked_sigmas(_descending("sigmas", sigmas)))
        if num_inference_steps is None:
            raise ValueError("a table needs num_inference_steps, timesteps or sigmas, got none")
        if name is not None:
            limits = self._largest_sigma(), self._smallest_sigma()
            chosen = named_grid(name, num_inference_steps, *limits)
            return self._levels_of_sigmas(self._checked_sigmas(chosen))
        return self._levels_of_count(num_inference_steps)

    @abstractmethod
    def _levels_of_count(self, count: int) -> list[Level]:
        """The levels of a number of steps, and the end point."""

    @abstractmethod
    def _levels_of_timesteps(self, timesteps: Float[np.ndarray, "n"]) -> list[Level]:
        """The levels of timesteps, and the end point."""

    @abstractmethod
    def _levels_of_sigmas(self, sigmas: Float[np.ndarray, "n"]) -> list[Level]:
        """The levels of noise levels sigma / alpha, the last being the end point."""

    @abstractmethod
    def _timestep_of(self, sigmas: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
        """The timesteps that the network is told at noise levels sigma / alpha."""

    def _end_timestep(self, sigmas: Float[np.ndarray, "n"]) -> float:
        """The timestep where a run of noise levels ends; -1 at the data, where none is told."""
        return float(self._timestep_of(sigmas[-1:])[0]) if sigmas[-1] > 0 else -1.0

    @abstractmethod
    def _largest_sigma(self) -> float:
        """The largest sigma / alpha that the network was trained on; may be infinite."""

    @abstractmethod
    def _smallest_sigma(self) -> float:
        """The smallest sigma / alpha that the network was trained on."""

    def _checked_timesteps(self, grid: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
        last = self.num_train_timesteps - 1
        if not (grid[-1] >= 0 and grid[0] <= last):
            raise ValueError(f"timesteps must lie in 0..{last}, got {grid[-1]:g} to {grid[0]:g}")
        if self.whole_timesteps and np.any(grid != np.floor(grid)):
            raise ValueError(f"timesteps must be whole numbers, got {grid.tolist()}")
        return grid

    def _checked_sigmas(self, grid: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
        if len(grid) < 2:
            raise ValueError(
                "sigmas are one more than the steps, the last is where the run ends; "
                f"got {len(grid)} of them"
            )
        largest = self._largest_sigma()
        if not (grid[-1] >= 0 and grid[0] <= BEYOND * largest):
            raise ValueError(
                f"sigmas must lie in 0..{largest:g}, those of the training schedule, "
                f"got {grid[-1]:g} to {grid[0]:g}"
            )
        return grid

    # The forward process.

    @abstractmethod
    def _training_levels(self) -> tuple[Float[np.ndarray, "T"], Float[np.ndarray, "T"]]:
        """(alpha, sigma) for every training timestep."""

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

        alpha, sigma = (gather(column, timestep) for column in self._training_levels())
        return forward.add_noise(x0, noise, alpha, sigma)


def _descending(name: str, given: Any) -> Float[np.ndarray, "n"]:
    """A grid as float64; raises ValueError for anything but a strictly descending list."""
    grid = np.asarray(given)
    if grid.dtype.kind not in "iuf":
        raise ValueError(f"{name} must be numbers, got {given!r}")
    if grid.ndim != 1 or not len(grid):
        raise ValueError(f"{name} must be a list of numbers, got shape {grid.shape}")
    if not np.all(np.diff(grid := grid.astype(np.float64)) < 0):
        raise ValueError(f"{name} must be strictly descending, got {grid.tolist()}")
    return grid


def gather(column: Float[np.ndarray, "T"], timestep: Any) -> Array:
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


def _in_range(level: Level) -> bool:
    """Whether a method can compute with a level; False for NaN. At alpha = 0 all is noise."""
    if level.alpha == 0:
        return 0 < level.sigma < np.inf
    return 0 < level.alpha < np.inf and 0 <= level.sigma <= MOST_NOISE * level.alpha
