"""What a metric is: of generated images, or of a model and real images."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from jaxtyping import Int

from ddpm_jax.evaluation.features import Collected, Need
from ddpm_jax.evaluation.resizing import Pixels
from ddpm_jax.sampling.loops import Denoise
from ddpm_jax.schedulers.base import Scheduler

SUBSETS_SEED = 2020
"""Of random subsets and orders: torch-fidelity's, as NumPy's old generator is, so that the numbers
are the same."""


class ModelEvidence(NamedTuple):
    """A model and the real images that it is asked about.

    Attributes:
        denoise: its network; with labels its params are the pair (params, labels).
        params: where the batches will be.
        scheduler: the process that it was trained for, of the class that the metric asked for.
        batches: of the `Metric.images` first images, all of one shape but for the first axis.
        batch_size: images computed together.
        labels: the class of each image; None for a model without classes.
        place: puts arrays with an axis of `batch_size` where the params are.
    """

    denoise: Denoise
    params: Any
    scheduler: Scheduler
    batches: Iterable[Pixels]
    batch_size: int
    labels: Int[np.ndarray, "n"] | None
    place: Callable[[Any], Any]


class Evidence(NamedTuple):
    """What metrics are computed from; None for what no metric needs.

    Attributes:
        samples: of the generated images.
        reference: of the real images.
        model: with the real images themselves.
    """

    samples: Collected | None = None
    reference: Collected | None = None
    model: ModelEvidence | None = None

    def both(self, need: Need) -> Iterator[Any]:
        """What was collected of the samples and of the reference, for metrics that need both."""
        return (getattr(one, need) for one in (self.samples, self.reference))


@dataclass(frozen=True, kw_only=True)
class Metric(ABC):
    """A metric, with its options as fields."""

    name: ClassVar[str]
    """On the command line."""
    of_samples: ClassVar[frozenset[Need]] = frozenset()
    """What it needs of the generated images."""
    of_reference: ClassVar[frozenset[Need]] = frozenset()
    """What it needs of the real images."""
    of_model: ClassVar[bool] = False
    """Whether it is of a model and the real images themselves."""

    def process(self, found: type[Scheduler]) -> type[Scheduler]:
        """The class that it reads the model's scheduler by, which is of class `found`."""
        return found

    def model_faults(self, scheduler: Scheduler, shape: tuple[int, int, int]) -> Iterator[str]:
        """Why a model, or its options for it, are refused; `shape` is (h, w, c) of the images."""
        yield from ()

    def images(self, count: int) -> int:
        """How many of so many real images a metric of a model takes, the first ones."""
        return count

    def faults(self, samples: int, reference: int | None) -> Iterator[str]:
        """What is wrong with its options for so many images, before any of them is computed."""
        yield from ()

    @abstractmethod
    def compute(self, evidence: Evidence) -> dict[str, float]:
        """Its numbers by name."""


def check(metric: Metric, samples: int, reference: int | None) -> None:
    """Raises ValueError with all faults of a metric for so many images."""
    if faults := list(metric.faults(samples, reference)):
        raise ValueError("; ".join(faults))
