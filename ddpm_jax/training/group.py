"""The base of every group of settings: at construction it checks types, then ranges.

Settings come from Python, from the command line and from JSON files, and a file may hold anything.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from ddpm_jax.checked import type_faults


@dataclass(frozen=True, kw_only=True)
class Group:
    """Settings that belong together.

    Raises:
        ValueError: at construction, naming every field of a wrong type; if there is none, every
            field that is refused.
    """

    def __post_init__(self) -> None:
        faults = list(type_faults(self)) or list(self._faults())
        if faults:
            raise ValueError(f"{type(self).__name__}: {'; '.join(faults)}")

    def _faults(self) -> Iterator[str]:
        """A sentence for each wrong value, where all types are right."""
        yield from ()

    def _at_least(self, **least: float) -> Iterator[str]:
        """The fields of these names below these values; None is accepted."""
        for name, low in least.items():
            value = getattr(self, name)
            if value is not None and value < low:
                yield f"{name} must be at least {low}, got {value}"

    def _at_most(self, **most: float) -> Iterator[str]:
        """The fields of these names above these values; None is accepted."""
        for name, high in most.items():
            value = getattr(self, name)
            if value is not None and value > high:
                yield f"{name} must be at most {high}, got {value}"

    def _above_zero(self, *names: str) -> Iterator[str]:
        """Which of the fields are not above 0; None is accepted."""
        for name in names:
            value = getattr(self, name)
            if value is not None and value <= 0:
                yield f"{name} must be above 0, got {value}"

    def _shares(self, *names: str) -> Iterator[str]:
        """Which of the fields are outside [0, 1)."""
        for name in names:
            if not 0 <= getattr(self, name) < 1:
                yield f"{name} must lie in [0, 1), got {getattr(self, name)}"
