"""Checks the values of a dataclass of settings against its annotations."""

import math
from collections.abc import Collection, Iterator
from dataclasses import fields
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from ddpm_jax._typing import is_number, is_whole

WORDS = {
    int: "a whole number",
    float: "a finite number",
    bool: "true or false",
    str: "a text",
    NoneType: "None",
}


def type_faults(config: Any, skip: Collection[str] = ()) -> Iterator[str]:
    """A sentence for each field, but those to skip, whose value does not have its annotated type.

    Annotations are int, float, bool, str, None, literals of texts, tuples of any length of these,
    and unions of them. NumPy's numbers are numbers; True and False are not.
    """
    hints = _hints(type(config))
    for field in fields(config):
        if field.name in skip:
            continue
        value, hint = getattr(config, field.name), hints[field.name]
        if not _fits(value, hint):
            yield f"{field.name} must be {_in_words(hint)}, got {value!r}"


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
        return is_number(value) and _is_finite(value)
    return isinstance(value, hint)


def _is_finite(value: Any) -> bool:
    """Whether a number has a float; NumPy has no numbers for larger integers."""
    return abs(value) < 2**63 if is_whole(value) else math.isfinite(value)


def _in_words(hint: Any) -> str:
    origin, inside = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join(_in_words(choice) for choice in inside)
    if origin is Literal:
        return f"one of {', '.join(inside)}"
    if origin is tuple:
        return f"a list, of each {_in_words(inside[0])}"
    return WORDS[hint]
