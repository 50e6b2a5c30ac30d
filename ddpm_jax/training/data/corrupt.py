"""Pictures that cannot be read: named once each, counted, and too many of them an error."""

import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

Fault: TypeAlias = tuple[int, str]
"""A picture's index in the source, and why it cannot be read."""

NAMED = 100
"""The most pictures that one error names."""


class PictureError(Exception):
    """One picture cannot be read; the message says why, not which."""


class CorruptPictures(ValueError):
    """More pictures cannot be read than the settings allow."""


class CorruptPictureWarning(UserWarning):
    """A picture cannot be read and is skipped."""


class Corrupt:
    """The unreadable pictures that a run has met: one ledger for all its iterators.

    Attributes:
        limit: how many distinct ones are borne.
        found: why each is unreadable, by its index in the source.
    """

    def __init__(self, limit: int, name_of: Callable[[int], str]):
        self.limit = limit
        self.found: dict[int, str] = {}
        self._name_of = name_of

    def add(self, faults: Iterable[Fault]) -> None:
        """Warns of each picture that is new; CorruptPictures once there are more than `limit`."""
        new = {index: why for index, why in faults if index not in self.found}
        self.found.update(new)
        if len(self.found) > self.limit:
            raise self.error()
        for index, why in new.items():
            warnings.warn(
                f"{self._name_of(index)} cannot be read and is skipped: {why}",
                CorruptPictureWarning,
                stacklevel=3,
            )

    def error(self) -> CorruptPictures:
        """The error that names every picture found so far."""
        return too_many(self.found, self.limit, self._name_of)


def too_many(
    found: Mapping[int, str], limit: int, name_of: Callable[[int], str]
) -> CorruptPictures:
    """The error for more unreadable pictures than `limit`, by index, which names them."""
    lines = [f"  {name_of(index)}: {why}" for index, why in sorted(found.items())]
    if len(lines) > NAMED:
        lines[NAMED:] = [f"  and {len(lines) - NAMED} more"]
    count = f"{len(found)} unreadable pictures, and max_corrupt allows {limit}"
    none = "not one of the pictures can be read"
    return CorruptPictures((count if len(found) > limit else none) + ":\n" + "\n".join(lines))
