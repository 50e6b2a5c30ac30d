"""What a metric of generated images is."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from ddpm_jax.evaluation.features import Collected, Need

SUBSETS_SEED = 2020
"""Of random subsets and orders: torch-fidelity's, so that its numbers are the same."""


class Evidence(NamedTuple):
    """What metrics are computed from.

    Attributes:
        samples: of the generated images.
        reference: of the real images; None if no metric needs them.
    """

    samples: Collected
    reference: Collected | None = None


@dataclass(frozen=True, kw_only=True)
class Metric(ABC):
    """A metric, with its options as fields.

    A metric of something else than images, such as a model's likelihood, needs neither features of
    samples nor of the reference.
    """

    name: ClassVar[str]
    """On the command line."""
    of_samples: ClassVar[frozenset[Need]]
    """What it needs of the generated images."""
    of_reference: ClassVar[frozenset[Need]] = frozenset()
    """What it needs of the real images."""

    def faults(self, samples: int, reference: int | None) -> Iterator[str]:
        """What is wrong with its options for so many images, before any of them is computed."""
        yield from ()

    @abstractmethod
    def compute(self, evidence: Evidence) -> dict[str, float]:
        """Its numbers by name."""


def generator(seed: int) -> np.random.RandomState:
    """NumPy's old generator: the numbers are torch-fidelity's for a seed."""
    return np.random.RandomState(seed)


def check(metric: Metric, samples: int, reference: int | None) -> None:
    """Raises ValueError with all faults of a metric for so many images."""
    if faults := list(metric.faults(samples, reference)):
        raise ValueError("; ".join(faults))
