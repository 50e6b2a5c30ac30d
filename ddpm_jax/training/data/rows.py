"""Rows into batches, and batches on their way out of grain's threads and worker processes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from ddpm_jax.training.data.corrupt import Fault
from ddpm_jax.training.data.source import Source
from ddpm_jax.training.data.transform import to_range

Batch: TypeAlias = dict[str, np.ndarray]
"""image: (b, h, w, c) float32 in [-1, 1]; label: (b,) int32, where there are labels; index: (b,)
int64, where each picture is in the source; weight: (b,) float32, in held-out batches only."""

Sent: TypeAlias = dict[str, Any]
"""A batch as workers send it, its images still uint8 where the pictures are; with `faults`."""

NOWHERE = -1
"""Index of a row with no picture."""


@dataclass(frozen=True)
class Row:
    """One picture, (h, w, c) uint8 or float32 in [0, 1], and those that could not be read."""

    image: np.ndarray
    index: int
    faults: tuple[Fault, ...] = ()


def blank(source: Source, faults: tuple[Fault, ...] = ()) -> Row:
    """A row with no picture."""
    return Row(np.zeros(source.shape, np.uint8), NOWHERE, faults)


def stack(rows: Sequence[Row]) -> Sent:
    """One batch of rows: its images uint8 where all are, else float32 in [-1, 1]."""
    images = [row.image for row in rows]
    if any(image.dtype != np.uint8 for image in images):
        images = [to_range(image) for image in images]
    return {
        "image": np.stack(images),
        "index": np.array([row.index for row in rows], np.int64),
        "faults": tuple(fault for row in rows for fault in row.faults),
    }


def finish(sent: Sent, source: Source) -> Batch:
    """The batch as training has it; nothing of it lies in a worker's memory any more."""
    image, index = sent["image"], np.array(sent["index"])
    ready = to_range(image) if image.dtype == np.uint8 else np.array(image)
    batch: Batch = {"image": ready, "index": index}
    if source.labels is not None:
        batch["label"] = source.labels[np.maximum(index, 0)]
    return batch
