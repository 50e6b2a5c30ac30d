"""Types of optional arguments; their default is told in words, by the help text."""

from typing import Annotated, TypeAlias

import tyro


def _named(metavar: str) -> object:
    return tyro.conf.arg(metavar=metavar, help_behavior_hint="")


OptionalNumber: TypeAlias = Annotated[float | None, _named("NUMBER")]
OptionalCount: TypeAlias = Annotated[int | None, _named("N")]
OptionalName: TypeAlias = Annotated[str | None, _named("NAME")]
Assignments: TypeAlias = Annotated[
    tuple[str, ...], tyro.conf.arg(name="set", metavar="FIELD=VALUE ...", help_behavior_hint="")
]
Labels: TypeAlias = Annotated[tuple[int, ...], _named("CLASS ...")]
