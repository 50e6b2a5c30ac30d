"""The scheduler, its steps and its options, or a table of its own: shared by `sample` and
`describe`.
"""

import dataclasses
import inspect
import json
import math
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import numpy as np
import tyro

from ddpm_jax.cli.common import (
    Assignments,
    OptionalGrid,
    OptionalName,
    OptionalNumber,
    OptionError,
    flag,
    option_errors,
)
from ddpm_jax.schedulers import BY_NAME, SCHEDULERS, DDIMScheduler, Scheduler, SchedulerName
from ddpm_jax.schedulers.betas import BetaScheduler

if TYPE_CHECKING:
    from ddpm_jax.tables.table import Table

_COMMON = inspect.signature(Scheduler.table).parameters
TABLE_OPTIONS: dict[str, inspect.Parameter] = {
    name: option
    for cls in reversed(BY_NAME.values())  # of an option that several have, the first one's
    for name, option in inspect.signature(cls.table).parameters.items()
    if name not in _COMMON
}
"""Options of some scheduler's `table`, not of its config."""

LEARNED = "learned"
"""The name of a model's own learned tables, among the schedulers."""
OptionalScheduler = Annotated[
    SchedulerName | Literal["learned"] | None,
    tyro.conf.arg(
        metavar=f"{{{','.join((*get_args(SchedulerName), LEARNED))}}}", help_behavior_hint=""
    ),
]
TableFile = Annotated[
    str | None, tyro.conf.arg(name="table", metavar="FILE", help_behavior_hint="")
]
FARTHEST = 1.0
"""How far a table's noise levels may be from those of the timesteps that it tells the network, in
log(sigma / alpha); learned tables move them a little."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A scheduler's name and options, as given on the command line."""

    scheduler: OptionalScheduler = None
    """The sampling method; "learned" is the model's own learned table of so many steps. By default
    ddim, or the model's own where its forward process is not that of ddim."""

    steps: int = 50
    """Number of inference steps."""

    table_file: TableFile = None
    """Run the table in this file, which `ddpm-jax learn` or `save_table` wrote. It takes the place
    of the scheduler and its options."""

    grid: OptionalGrid = None
    """The noise levels by name: even in their root (rho) or logarithm (log-snr), those that Align
    Your Steps published (ays-...), or optimized for few steps (dmn)."""

    eta: OptionalNumber = None
    """DDIM, RePaint and TCD: new noise per step, from 0 (no noise) to 1 (DDIM: that of DDPM). The
    default is 0, and 0.3 for TCD."""

    scheduler_config: OptionalName = None
    """Use this scheduler's config instead of the model's: a hub id, a local folder, a JSON file, or
    "default". A network alone, without a pipeline, needs it."""

    overrides: Assignments = ()
    """Change fields of the scheduler's config (timestep_spacing=trailing), or set options of a run
    (s_churn=40)."""

    def make(
        self, config: Mapping[str, Any] | None = None, kind: type[Scheduler] | None = None
    ) -> Scheduler:
        """The scheduler, made from `config`, the config of a model's own scheduler, if given.

        `kind` is its class; None for the method's.

        Raises:
            OptionError: the scheduler lacks a field or refuses a value.
            ValueError: the scheduler refuses a value in the model's config.
        """
        fields = {name: value for name, value in self._given() if not self._is_option(name)}
        with option_errors() if fields else nullcontext():
            return (kind or self.kind(config or {})).from_config(config or {}, **fields)

    def kind(self, config: Mapping[str, Any]) -> type[Scheduler]:
        """The class of the scheduler; the model's own one where its steps are not needed, or where
        none is named and DDIM has another forward process.
        """
        if self.scheduler is not None and not self.has_own_table:
            return BY_NAME[self.scheduler]
        own = own_kind(config)
        return own if self.has_own_table or own.family != DDIMScheduler.family else DDIMScheduler

    @property
    def has_own_table(self) -> bool:
        """Whether the table is a file's, and no scheduler's."""
        return self.table_file is not None or self.scheduler == LEARNED

    def table(self, scheduler: Scheduler, model: str | None, start: int = 0) -> "Table":
        """The table of the run, without the first `start` steps.

        Args:
            scheduler: as `make` gives it.
            model: whose learned table it may be.
            start: steps to leave out.

        Raises:
            OptionError: the scheduler refuses the number of steps or an option, or there is no
                such table, or it is for other noise levels.
        """
        if self.has_own_table:
            return self._own_table(scheduler, model)
        options = self.options()
        if self.grid is not None:
            options["grid"] = self.grid
        accepted = {*inspect.signature(scheduler.table).parameters, "grid"}
        refused = sorted(set(options) - accepted)
        if refused:
            name = scheduler.short_name()
            raise OptionError(f"the {name} scheduler has no option {', '.join(refused)}")
        with option_errors():
            return scheduler.table(self.steps, start=start, **options)

    def guidance_of_table(self, model: str) -> float | None:
        """The scale of guidance that a table of its own is for, or None."""
        from ddpm_jax.tables.files import guidance_of

        with option_errors():
            return guidance_of(self._own_file(model)) if self.has_own_table else None

    def settings(self, scheduler: Scheduler, model: str | None) -> dict[str, Any]:
        """What determines the table, by name."""
        from ddpm_jax.hub.files import file_sum

        if not self.has_own_table:
            named = {"scheduler": scheduler_json(scheduler), "steps": self.steps, "grid": self.grid}
            return named | self.options()
        named = {"table": self.table_file}
        if self.table_file is None:
            named = {"scheduler": LEARNED, "steps": self.steps}
        return named | {"table_sha256": file_sum(self._own_file(model))}

    def _own_file(self, model: str | None) -> Path:
        """The file of --table, or of the model's learned table."""
        from ddpm_jax.learning.bundled import learned_file

        if self.table_file is not None:
            return Path(self.table_file)
        if model is None:
            raise OptionError("--scheduler learned is of a model: pass --model")
        with option_errors():
            return learned_file(model, self.steps)

    def _own_table(self, scheduler: Scheduler, model: str | None) -> "Table":
        """The table of a file, or the model's learned one."""
        from ddpm_jax.tables.files import load_table

        default = Schedule()
        of_file = ("scheduler", "steps") if self.table_file is not None else ()
        names = (*of_file, "eta", "grid", "overrides")
        if replaced := [flag(k) for k in names if getattr(self, k) != getattr(default, k)]:
            what = "--table" if self.table_file is not None else "--scheduler learned"
            raise OptionError(f"{what} takes the place of {', '.join(replaced)}: leave it out")
        file = self._own_file(model)
        with option_errors():
            found = load_table(file)
        _check_levels(found, scheduler, file)
        return found

    def options(self) -> dict[str, Any]:
        """The options for `table`. Zeros that ask for nothing are left out if it lacks them.

        Raises:
            OptionError: a value is not a number, or for a flag not true or false.
        """
        found = {name: value for name, value in self._given() if self._is_option(name)}
        faults = [fault for name, value in found.items() if (fault := _fault(name, value))]
        if faults:
            raise OptionError("; ".join(faults))
        own = inspect.signature(self.kind({}).table).parameters
        return {k: value for k, value in found.items() if k in own or not _is_idle(k, value)}

    def _is_option(self, name: str) -> bool:
        """Whether it is an option of a run. A field of the scheduler may have such a name."""
        own = [field.name for field in dataclasses.fields(self.kind({}))]
        return name in TABLE_OPTIONS and name not in own

    def _given(self) -> list[tuple[str, Any]]:
        pairs = [text.partition("=") for text in self.overrides]
        wrong = [name for name, equals, _ in pairs if not (name and equals)]
        if wrong:
            raise OptionError(f"--set needs FIELD=VALUE, got {', '.join(wrong)}")
        given = [(name, _value(text)) for name, _, text in pairs]
        return given if self.eta is None else [*given, ("eta", self.eta)]


def own_kind(config: Mapping[str, Any]) -> type[Scheduler]:
    """The class that a scheduler's config names; DDIM's without a known name."""
    named = {cls.__name__: cls for cls in SCHEDULERS}
    return named.get(str(config.get("_class_name")), DDIMScheduler)


def _check_levels(table: "Table", scheduler: Scheduler, file: Path) -> None:
    """OptionError if a table's timesteps belong to other noise levels in this model."""
    if not isinstance(scheduler, BetaScheduler):
        return
    logs = np.log(scheduler.noise_schedule.noise_ratio)
    alpha, sigma = np.asarray(table.level, np.float64).T
    expected = np.interp(table.timestep, np.arange(len(logs)), logs)
    apart = np.abs(np.log(sigma / alpha) - expected)
    worst = int(np.argmax(apart))
    if apart[worst] > FARTHEST:
        raise OptionError(
            f"{file} is a table for another model: at timestep {table.timestep[worst]:g} it has "
            f"sigma / alpha {sigma[worst] / alpha[worst]:.3g}, and this model's noise schedule "
            f"{np.exp(expected[worst]):.3g}"
        )


def scheduler_json(scheduler: Scheduler) -> str:
    """A scheduler's class and config as one line of JSON, like `scheduler_config.json`."""
    return json.dumps({"_class_name": type(scheduler).__name__, **scheduler.config})


def _value(text: str) -> Any:
    """A field's value: JSON (3, 0.5, true, null, [0.1, 0.2]) if it parses, otherwise the text."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return {"True": True, "False": False, "None": None, "inf": math.inf}.get(text, text)


def _is_idle(name: str, value: Any) -> bool:
    """Whether a value of one of TABLE_OPTIONS is as good as none: a flag's false, zero for zero."""
    return value is False or (value == 0 and TABLE_OPTIONS[name].default == 0)


def _fault(name: str, value: Any) -> str | None:
    """The fault of a value of one of TABLE_OPTIONS, or None."""
    if bool in get_args(TABLE_OPTIONS[name].annotation):
        return None if isinstance(value, bool) else f"{name} must be true or false, got {value!r}"
    # value == value is False for NaN
    number = isinstance(value, int | float) and not isinstance(value, bool) and value == value
    return None if number else f"{name} must be a number, got {value!r}"
