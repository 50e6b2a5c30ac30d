"""Sets of images to compare: of any data that training reads, as uint8 batches."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from ddpm_jax.evaluation.resizing import Pixels
from ddpm_jax.training.data import Source

THREADS = 4
"""Threads that decode files: Pillow lets them run at once."""


class ImageSet(ABC):
    """Images of one shape."""

    @property
    @abstractmethod
    def count(self) -> int:
        """Number of images."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int, int] | None:
        """(h, w, c); None if it is not yet known."""

    @property
    @abstractmethod
    def settings(self) -> dict[str, object]:
        """Where the images are from, for the record."""

    @abstractmethod
    def batches(self, size: int) -> Iterator[Pixels]:
        """All images in order, at most `size` at a time."""


@dataclass(frozen=True)
class SourceImages(ImageSet):
    """The first images of a data set.

    Attributes:
        source: the data set.
        name: what the user called it.
        num: number of images.
    """

    source: Source
    name: str
    num: int

    @property
    def count(self) -> int:
        """Number of images."""
        return self.num

    @property
    def shape(self) -> tuple[int, int, int]:
        """(h, w, c)."""
        return self.source.shape

    @property
    def settings(self) -> dict[str, object]:
        """Its name, and a hash of its files' names."""
        return {"data": self.name, "files": self.source.fingerprint}

    def batches(self, size: int) -> Iterator[Pixels]:
        """All images in order. Raises UnreadableImage."""
        with ThreadPoolExecutor(THREADS) as threads:
            for start in range(0, self.count, size):
                indices = range(start, min(start + size, self.count))
                yield np.stack(list(threads.map(self._image, indices)))

    def _image(self, index: int) -> UInt8[np.ndarray, "h w c"]:
        image = self.source.image(index, None)
        if image.dtype == np.uint8:
            return image
        return (image * 255).round().clip(0, 255).astype(np.uint8)  # half to even
