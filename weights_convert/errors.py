"""Text for errors."""

from collections.abc import Iterable

LISTED = 10
"""The most items of a list in a message."""


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its class if the message is empty."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def listed(items: Iterable[object], separator: str = ", ") -> str:
    """The items as text, cut at ten with a count.

    >>> listed(range(12))
    '0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more'
    """
    texts = [str(item) for item in items]
    rest = len(texts) - LISTED
    return separator.join(texts[:LISTED]) + (f" and {rest} more" if rest > 0 else "")
