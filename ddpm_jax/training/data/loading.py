"""Batches of numbers into batches of images: the steps that both input pipelines share."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from jaxtyping import Int64

from ddpm_jax._typing import is_whole
from ddpm_jax.extras import check_installed
from ddpm_jax.training.data.source import Source
from ddpm_jax.training.data.transform import to_range

if TYPE_CHECKING:
    import grain

Batch: TypeAlias = dict[str, np.ndarray]
"""image: (b, h, w, c) float32 in [-1, 1]; label: (b,) int32, if there are labels; index: (b,)
int64, where each image is in the source; weight: (b,) float32, in held-out batches only."""

NO_IMAGE = -1
"""Number and index of a row without an image; its pixels are 0."""

THREADS = 2
"""Threads that load batches where there are no workers: one decodes while another copies. More
would take cores from a training step on a CPU."""


@dataclass(frozen=True)
class Share:
    """The rows of a batch that one process has.

    Attributes:
        process_index: which process it is.
        process_count: the number of processes.
    """

    process_index: int
    process_count: int

    def __call__(self, batch: Mapping[str, np.ndarray]) -> Batch:
        """These rows; consecutive ones, so that the processes' rows in order are the batch."""
        rows = len(batch["number"]) // self.process_count
        first = self.process_index * rows
        return {name: values[first : first + rows] for name, values in batch.items()}


@dataclass(frozen=True)
class Load:
    """Loads the images of a batch of numbers. Runs in threads and in worker processes.

    Attributes:
        source: the images.
        indices: the index in the source of image 0, 1, ...
    """

    source: Source
    indices: Int64[np.ndarray, "n"]

    def __call__(self, batch: Mapping[str, np.ndarray]) -> Batch:
        """{"image", "index"}; the images stay uint8 if all are, which is a quarter to send."""
        number = batch["number"]
        index = np.where(number == NO_IMAGE, NO_IMAGE, self.indices[number])
        words = batch["words"].tolist() if "words" in batch else [None] * len(index)
        rows = zip(index.tolist(), words, strict=True)
        images = [self._image(*row) for row in rows]
        if any(image.dtype != np.uint8 for image in images):
            images = [to_range(image) for image in images]
        return {"image": np.stack(images), "index": index}

    def _image(self, index: int, words: list[int] | None) -> np.ndarray:
        if index == NO_IMAGE:
            return np.zeros(self.source.shape, np.uint8)
        return self.source.image(index, words)


def in_threads(batches: "grain.MapDataset[Batch]") -> "grain.IterDataset[Batch]":
    """The batches in order, loaded ahead by `THREADS` threads of this process."""
    options = import_grain().ReadOptions(num_threads=THREADS, prefetch_buffer_size=THREADS)
    return batches.to_iter_dataset(options)


def finish(loaded: Batch, source: Source) -> Batch:
    """The batch for training. Its arrays are copies: a worker's shared memory is freed."""
    image, index = loaded["image"], np.array(loaded["index"])
    batch = {"image": to_range(image) if image.dtype == np.uint8 else np.array(image)}
    batch["index"] = index
    if source.labels is not None:
        batch["label"] = source.labels[np.maximum(index, 0)]
    return batch


def import_grain() -> Any:
    """The module; ImportError with the install command if it is missing."""
    check_installed(("grain",), "the training input")
    import grain

    return grain


def check_sizes(batch_size: int, process_index: int, process_count: int) -> None:
    """ValueError unless the processes can share a batch."""
    if not is_whole(process_count) or not 0 <= process_index < process_count:
        raise ValueError(
            f"process_index must lie in 0..process_count - 1; got {process_index} of "
            f"{process_count}"
        )
    if not is_whole(batch_size) or batch_size < 1 or batch_size % process_count:
        raise ValueError(
            f"batch_size must be a positive multiple of the {process_count} processes, "
            f"got {batch_size!r}"
        )
