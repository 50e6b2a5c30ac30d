"""Faults of options, told apart from faults of the work: another exit code."""

from collections.abc import Iterator
from contextlib import contextmanager


class OptionError(ValueError):
    """An option has a value that it does not take, or not for this model."""


@contextmanager
def of_options() -> Iterator[None]:
    """A ValueError raised in the block is an `OptionError`, of the same text."""
    try:
        yield
    except ValueError as error:
        raise OptionError(str(error)) from error
