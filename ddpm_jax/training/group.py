"""The base of every group of settings: at construction it checks types, then ranges.

Settings come from Python, from the command line and from JSON files, and a file may hold anything.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from ddpm_jax._typing import is_number, is_whole


@dataclass(frozen=True, kw_only=True)
class Group:
    """Settings that belong together.

    Raises:
        ValueError: at construction, naming every field of a wrong type; if there is none, every
            field that is refused.
    """

    def __post_init__(self) -> None:
        faults = list(self._wrong_types()) or list(self._faults())
        if faults:
            raise ValueError(f"{type(self).__name__}: {'; '.join(faults)}")

    def _wrong_types(self) -> Iterator[str]:
        hints = _hints(type(self))
        for field in fields(self):
            value, hint = getattr(self, field.name), hints[field.name]
            if not _fits(value, hint):
                yield f"{field.name} must be {_in_words(hint)}, got {value!r}"

    def _faults(self) -> Iterator[str]:
        """What is wrong with values of the right types, a sentence each."""
        yield from ()

    def _at_least(self, **least: float) -> Iterator[str]:
        """The fields of these names that are below these values; None is not."""
        for name, low in least.items():
            value = getattr(self, name)
            if value is not None and value < low:
                yield f"{name} must be at least {low}, got {value}"

    def _at_most(self, **most: float) -> Iterator[str]:
        """The fields of these names that are above these values; None is not."""
        for name, high in most.items():
            value = getattr(self, name)
            if value is not None and value > high:
                yield f"{name} must be at most {high}, got {value}"

    def _above_zero(self, *names: str) -> Iterator[str]:
        """Which of the fields are not above 0; None is."""
        for name in names:
            value = getattr(self, name)
            if value is not None and value <= 0:
                yield f"{name} must be above 0, got {value}"

    def _shares(self, *names: str) -> Iterator[str]:
        """Which of the fields are outside [0, 1)."""
        for name in names:
            if not 0 <= getattr(self, name) < 1:
                yield f"{name} must lie in [0, 1), got {getattr(self, name)}"


@cache
def _hints(group: type) -> dict[str, Any]:
    return get_type_hints(group)


def _fits(value: object, hint: Any) -> bool:
    origin, inside = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, choice) for choice in inside)
    if origin is Literal:
        return isinstance(value, str) and value in inside
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(one, inside[0]) for one in value)
    if hint is int:
        return is_whole(value)
    if hint is float:
        return is_number(value) and math.isfinite(value)  # pyright: ignore[reportArgumentType]
    return isinstance(value, hint)


def _in_words(hint: Any) -> str:
    origin, inside = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join(_in_words(choice) for choice in inside)
    if origin is Literal:
        return f"one of {', '.join(inside)}"
    if origin is tuple:
        return f"a list, of each {_in_words(inside[0])}"
    return WORDS[hint]


WORDS = {
    int: "a whole number",
    float: "a finite number",
    bool: "true or false",
    str: "a text",
    NoneType: "None",
}
