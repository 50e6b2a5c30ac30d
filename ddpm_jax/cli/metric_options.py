"""The metrics of `evaluate` with their options, from the texts of the command line."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, get_args, get_origin, get_type_hints

from ddpm_jax.cli.common import OptionError
from ddpm_jax.evaluation.metrics import METRICS, Metric


def chosen(names: str, options: Sequence[str]) -> list[Metric]:
    """The metrics of names with commas, with options METRIC.FIELD=VALUE.

    Raises:
        OptionError: a metric is unknown or given twice, an option is of no chosen metric, or its
            value is not of its kind.
    """
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    if not wanted or not set(wanted) <= set(METRICS) or len(set(wanted)) < len(wanted):
        raise OptionError(
            f"--metrics takes one or more of {', '.join(METRICS)} with commas, each once; got "
            f"{names!r}"
        )
    kinds = {
        f"{name}.{field}": kind for name in wanted for field, kind in _fields(METRICS[name]).items()
    }
    values: dict[str, dict[str, Any]] = {name: {} for name in wanted}
    for text in options:
        option, equals, value = text.partition("=")
        if option not in kinds or not equals:
            accepted = ", ".join(f"{one}=..." for one in kinds) or "none"
            raise OptionError(f"--metric-options takes, of {names}, {accepted}; got {text!r}")
        name, _, field = option.partition(".")
        values[name][field] = _value(kinds[option], option, value)
    return [METRICS[name](**values[name]) for name in wanted]


def _fields(metric: type[Metric]) -> dict[str, Any]:
    hints = get_type_hints(metric)
    return {field.name: hints[field.name] for field in dataclasses.fields(metric)}


def _value(kind: Any, option: str, text: str) -> Any:
    """A number, or one of several words."""
    if get_origin(kind) is Literal:
        if text not in get_args(kind):
            accepted = ", ".join(get_args(kind))
            raise OptionError(f"--metric-options {option} must be one of {accepted}, got {text!r}")
        return text
    try:
        return kind(text)
    except ValueError:
        what = "a whole number" if kind is int else "a number"
        raise OptionError(f"--metric-options {option} must be {what}, got {text!r}") from None
