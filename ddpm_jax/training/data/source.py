"""Images by index, whatever they are stored in."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64

from ddpm_jax.training.data.decoding import Header, Pixels, UnreadableImage
from ddpm_jax.training.data.transform import Transform, to_range


@runtime_checkable
class Reader(Protocol):
    """Where images are stored. It can be pickled, and read by several threads."""

    @property
    def converts(self) -> bool:
        """Whether `read` converts to the number of channels that it gets."""
        ...

    def __len__(self) -> int: ...

    def header(self, index: int) -> Header:
        """Size and channels of an image. Raises UnreadableImage."""
        ...

    def read(self, index: int, channels: int) -> Pixels:
        """The pixels of an image. Raises UnreadableImage."""
        ...

    def name_of(self, index: int) -> str:
        """The name of an image in messages."""
        ...


class Opened(NamedTuple):
    """A data set before its transform.

    Attributes:
        reader: its images.
        labels: the class of each image, or None.
        classes: the classes' names, if they have names.
    """

    reader: Reader
    labels: np.ndarray | None = None
    classes: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Selected:
    """Some of a reader's images.

    Attributes:
        reader: the reader of all.
        indices: where the images are in it, in ascending order.
    """

    reader: Reader
    indices: Int64[np.ndarray, "n"]

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def converts(self) -> bool:
        """As the reader of all."""
        return self.reader.converts

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of their files; empty where they are no files."""
        names: tuple[str, ...] = getattr(self.reader, "names", ())
        return tuple(names[int(index)] for index in self.indices) if names else ()

    def header(self, index: int) -> Header:
        """Size and channels of an image."""
        return self.reader.header(int(self.indices[index]))

    def read(self, index: int, channels: int) -> Pixels:
        """The pixels of an image."""
        return self.reader.read(int(self.indices[index]), channels)

    def name_of(self, index: int) -> str:
        """The name of an image in messages."""
        return self.reader.name_of(int(self.indices[index]))


@dataclass(frozen=True)
class Source:
    """Images by index, resized and cropped, with labels if the settings ask for them.

    Attributes:
        reader: where they are stored.
        transform: the resizing, cropping and flipping.
        shape: (h, w, c) of each image after that.
        labels: the class of each image, or None.
        classes: the classes' names; None without labels, or if they have no names.
    """

    reader: Reader
    transform: Transform
    shape: tuple[int, int, int]
    labels: np.ndarray | None
    classes: tuple[str, ...] | None

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """{"image": (h, w, c) float32 in [-1, 1]}, cropped at the center and not flipped, and
        "label", a () int32, if there are labels. Raises UnreadableImage.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"there are {len(self)} images; got index {index}")
        item = {"image": to_range(self.image(index, None))}
        if self.labels is not None:
            item["label"] = self.labels[index]
        return item

    @property
    def num_classes(self) -> int | None:
        """The number of names, or one more than the largest label; None without labels."""
        if self.labels is None:
            return None
        return len(self.classes) if self.classes else int(self.labels.max()) + 1

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the files' names in their order; a changed folder gives another one."""
        names: Sequence[str] = getattr(self.reader, "names", ())
        return hashlib.sha256("\0".join(names).encode(errors="surrogateescape")).hexdigest()[:16]

    def name_of(self, index: int) -> str:
        """The name of an image in messages: its file, or its row."""
        return self.reader.name_of(index)

    def image(self, index: int, words: Sequence[int] | None) -> np.ndarray:
        """(h, w, c), uint8 or float32 in [0, 1]. The random `words` decide crop and flip, see
        `Transform`.

        Raises:
            UnreadableImage: names the image and says what is wrong with it.
        """
        try:
            image = self.transform(self.reader.read(index, self.shape[2]), words)
        except UnreadableImage as error:
            raise UnreadableImage(f"{self.name_of(index)} cannot be read: {error}") from error
        if image.shape != self.shape:
            raise UnreadableImage(
                f"{self.name_of(index)} is {_size(image.shape)}, the other images are "
                f"{_size(self.shape)}"
            )
        return image


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
