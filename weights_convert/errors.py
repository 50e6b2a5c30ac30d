"""Text for errors."""

import os
from collections.abc import Generator, Iterable
from contextlib import contextmanager

LISTED = 10
"""The most items of a list in a message."""


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its class if the message is empty."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@contextmanager
def faults_of(path: str | os.PathLike[str]) -> Generator[None, None, None]:
    """Prefixes a ValueError's message with the file name, unless the message contains it."""
    try:
        yield
    except ValueError as error:
        if str(path) in str(error):
            raise
        raise ValueError(f"{path}: {error}") from None


def listed(items: Iterable[object], separator: str = ", ") -> str:
    """The items as text, cut at ten with a count.

    >>> listed(range(12))
    '0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more'
    """
    texts = [str(item) for item in items]
    rest = len(texts) - LISTED
    return separator.join(texts[:LISTED]) + (f" and {rest} more" if rest > 0 else "")
