"""Pictures by index, whatever they are stored in."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np

from ddpm_jax.training.data.corrupt import PictureError
from ddpm_jax.training.data.pictures import Header, Pixels
from ddpm_jax.training.data.transform import Transform, to_range


@runtime_checkable
class Reader(Protocol):
    """Where pictures are stored. It can be pickled, and read by several threads."""

    def __len__(self) -> int: ...

    def header(self, index: int) -> Header:
        """Size and channels of a picture. Raises PictureError."""
        ...

    def read(self, index: int, channels: int) -> Pixels:
        """The pixels of a picture. Raises PictureError."""
        ...

    def name_of(self, index: int) -> str:
        """What a message calls a picture."""
        ...


@dataclass(frozen=True)
class Source:
    """Pictures by index, resized and cropped, with their labels where those are wanted.

    Attributes:
        reader: where they are stored.
        transform: what is done to each.
        shape: (h, w, c) of each after that.
        labels: each one's class, or None.
        classes: the classes' names, or None where there are no labels or they have no names.
    """

    reader: Reader
    transform: Transform
    shape: tuple[int, int, int]
    labels: np.ndarray | None
    classes: tuple[str, ...] | None

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """{"image": (h, w, c) float32 in [-1, 1]}, neither cropped at random nor flipped, and
        "label", a () int32, where there are labels. PictureError if it cannot be read.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"there are {len(self)} pictures; got index {index}")
        item = {"image": to_range(self.picture(index, None))}
        if self.labels is not None:
            item["label"] = self.labels[index]
        return item

    @property
    def num_classes(self) -> int | None:
        """One more than the largest label, or as many as have names; None without labels."""
        if self.labels is None:
            return None
        return len(self.classes) if self.classes else int(self.labels.max()) + 1

    @cached_property
    def fingerprint(self) -> str:
        """Of the files' names in their order, where it is files; others give other batches."""
        names: Sequence[str] = getattr(self.reader, "names", ())
        return hashlib.sha256("\0".join(names).encode(errors="surrogateescape")).hexdigest()[:16]

    def name_of(self, index: int) -> str:
        """What a message calls a picture: its file, or where it lies."""
        return self.reader.name_of(index)

    def picture(self, index: int, words: Sequence[int] | None) -> np.ndarray:
        """(h, w, c), uint8 or float32 in [0, 1], cropped and flipped as `words` say; see
        `Transform`. PictureError if it cannot be read.
        """
        image = self.transform(self.reader.read(index, self.shape[2]), words)
        if image.shape != self.shape:
            raise PictureError(f"comes out as {_size(image.shape)}, the others {_size(self.shape)}")
        return image


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
