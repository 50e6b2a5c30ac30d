"""The scheduler, its steps and its options: shared by `sample` and `describe`."""

import dataclasses
import inspect
import json
import math
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from ddpm_jax.cli.common import (
    Assignments,
    OptionalName,
    OptionalNumber,
    OptionError,
    option_errors,
)
from ddpm_jax.schedulers import BY_NAME, Scheduler, SchedulerName

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


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A scheduler's name and options, as given on the command line."""

    scheduler: SchedulerName = "ddim"
    """The sampling method."""

    steps: int = 50
    """Number of inference steps."""

    eta: OptionalNumber = None
    """DDIM, RePaint and TCD: new noise per step, from 0 (no noise) to 1 (DDIM: that of DDPM). The
    default is 0, and 0.3 for TCD."""

    scheduler_config: OptionalName = None
    """Use this scheduler's config instead of the model's: a hub id, a local folder, a JSON file, or
    "default". A network alone, without a pipeline, needs it."""

    overrides: Assignments = ()
    """Change fields of the scheduler's config (timestep_spacing=trailing), or set options of a run
    (s_churn=40)."""

    def make(self, config: Mapping[str, Any] | None = None) -> Scheduler:
        """The scheduler, made from `config`, the config of a model's own scheduler, if given.

        Raises:
            OptionError: the scheduler lacks a field or refuses a value.
            ValueError: the scheduler refuses a value in the model's config.
        """
        cls = BY_NAME[self.scheduler]
        fields = {name: value for name, value in self._given() if not self._is_option(name)}
        with option_errors() if fields else nullcontext():
            return cls.from_config({} if config is None else config, **fields)

    def table(self, scheduler: Scheduler, start: int = 0) -> "Table":
        """The table of the run, without the first `start` steps.

        Raises:
            OptionError: the scheduler refuses the number of steps or an option.
        """
        options = self.options()
        refused = sorted(set(options) - set(inspect.signature(scheduler.table).parameters))
        if refused:
            raise OptionError(f"the {self.scheduler} scheduler has no option {', '.join(refused)}")
        with option_errors():
            return scheduler.table(self.steps, start=start, **options)

    def options(self) -> dict[str, Any]:
        """The options for `table`. Zeros that ask for nothing are left out if it lacks them.

        Raises:
            OptionError: a value is not a number, or for a flag not true or false.
        """
        found = {name: value for name, value in self._given() if self._is_option(name)}
        faults = [fault for name, value in found.items() if (fault := _fault(name, value))]
        if faults:
            raise OptionError("; ".join(faults))
        own = inspect.signature(BY_NAME[self.scheduler].table).parameters
        return {k: value for k, value in found.items() if k in own or not _is_idle(k, value)}

    def _is_option(self, name: str) -> bool:
        """Whether it is an option of a run. A field of the scheduler may have such a name."""
        own = [field.name for field in dataclasses.fields(BY_NAME[self.scheduler])]
        return name in TABLE_OPTIONS and name not in own

    def _given(self) -> list[tuple[str, Any]]:
        pairs = [text.partition("=") for text in self.overrides]
        wrong = [name for name, equals, _ in pairs if not (name and equals)]
        if wrong:
            raise OptionError(f"--set needs FIELD=VALUE, got {', '.join(wrong)}")
        given = [(name, _value(text)) for name, _, text in pairs]
        return given if self.eta is None else [*given, ("eta", self.eta)]


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
