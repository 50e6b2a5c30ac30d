"""The run-time type checker of the tests: beartype, where an int is a float as PEP 484 has it.

jaxtyping's decorator holds the sizes of axes together over a call, and costs 25 microseconds for
it. Functions whose annotations name no array do without: beartype alone checks them, in one. The
tables of schedulers call such functions by the million.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar, get_args

import jaxtyping
from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
holding = jaxtyping.jaxtyped

Checked = TypeVar("Checked")


def jaxtyped(*, typechecker: Any) -> Callable[[Checked], Checked]:
    """In the place of `jaxtyping.jaxtyped`, which jaxtyping's import hook applies."""

    def decorate(fn: Any) -> Any:
        if inspect.isfunction(fn) and not any(
            map(names_arrays, inspect.get_annotations(fn).values())
        ):
            return without_arrays(fn, typechecker)
        return holding(typechecker=typechecker)(fn)

    return decorate


def names_arrays(annotation: Any) -> bool:
    """Whether an annotation may name an array of jaxtyping; a quoted one may."""
    if isinstance(annotation, str):
        return True
    if inspect.isclass(annotation) and issubclass(annotation, jaxtyping.AbstractArray):
        return True
    return any(map(names_arrays, get_args(annotation)))


def without_arrays(fn: Callable[..., Any], typechecker: Any) -> Callable[..., Any]:
    """Checked by the type checker alone, where the checks are on."""
    checked = typechecker(fn)

    @functools.wraps(fn)
    def call(*args: Any, **options: Any) -> Any:
        __tracebackhide__ = True
        return (fn if jaxtyping.config.jaxtyping_disable else checked)(*args, **options)

    return call
