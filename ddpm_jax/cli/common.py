"""Shared by several commands: errors of options, types of optional arguments, counts as text."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, TypeAlias

import tyro

from ddpm_jax.tables.grids import GridName


class OptionError(ValueError):
    """An option has an invalid value, or one that is invalid for this model: exit code 2."""


@contextmanager
def option_errors() -> Iterator[None]:
    """A ValueError raised in the block becomes an `OptionError` with the same message."""
    try:
        yield
    except ValueError as error:
        raise OptionError(str(error)) from error


def flag(name: str) -> str:
    """The option of a command's field, such as --batch-size of batch_size."""
    return {"overrides": "--set", "table_file": "--table"}.get(name, f"--{name.replace('_', '-')}")


def too_small(options: object, least: Mapping[str, int]) -> list[str]:
    """The faults of options that are below the least that they may be; None is left out."""
    return [
        f"{flag(name)} must be at least {low}, got {value}"
        for name, low in least.items()
        if (value := getattr(options, name)) is not None and value < low
    ]


def counted(count: int, thing: str) -> str:
    """A number and its noun: 1 image, 2 images, 1,797 images, 3 classes."""
    ending = "" if count == 1 else "es" if thing.endswith("s") else "s"
    return f"{count:,} {thing}{ending}"


DESCRIBED = tyro.conf.arg(help_behavior_hint="")
"""An argument whose default is described in its help text."""


def _named(metavar: str) -> object:
    """The same, with a name for its value."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint="")


OptionalNumber: TypeAlias = Annotated[float | None, _named("NUMBER")]
OptionalCount: TypeAlias = Annotated[int | None, _named("N")]
OptionalRange: TypeAlias = Annotated[tuple[float, float] | None, _named("LOW HIGH")]
OptionalGrid: TypeAlias = Annotated[GridName | None, _named("NAME")]
OptionalName: TypeAlias = Annotated[str | None, _named("NAME")]
Assignments: TypeAlias = Annotated[
    tuple[str, ...], tyro.conf.arg(name="set", metavar="FIELD=VALUE ...", help_behavior_hint="")
]
Labels: TypeAlias = Annotated[tuple[str, ...], _named("CLASS ...")]
Prompts: TypeAlias = Annotated[tuple[str, ...], _named("TEXT ...")]
