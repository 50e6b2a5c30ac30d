"""The held-out images: which they are, and their batches, in a fixed order and without flips."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Int64

from ddpm_jax.training.data.loading import (
    NO_IMAGE,
    Batch,
    Load,
    Share,
    check_sizes,
    finish,
    import_grain,
    in_threads,
)
from ddpm_jax.training.data.settings import Data
from ddpm_jax.training.data.source import Source


def held_out_indices(count: int, share: float) -> Int64[np.ndarray, "n"]:
    """Indices of the held-out images of `count`, in ascending order; the same for every seed.

    Args:
        count: the number of images.
        share: a fraction below 1 of them (at least one, unless 0), or a number of images.

    Raises ValueError if no image is left to train on.
    """
    wanted = int(share) if share >= 1 else round(count * share) or int(share > 0)
    if wanted >= count:
        raise ValueError(
            f"held_out={share:g} leaves no image to train on: there are {count} images"
        )
    # A bit generator's own numbers stay the same from one NumPy to the next.
    order = np.argsort(np.random.Philox(key=0).random_raw(count), kind="stable")
    return np.sort(order[:wanted]).astype(np.int64)


def training_indices(count: int, share: float) -> Int64[np.ndarray, "n"]:
    """Indices of all other images, in ascending order. Raises as `held_out_indices`."""
    kept = np.ones(count, bool)
    kept[held_out_indices(count, share)] = False
    return np.flatnonzero(kept).astype(np.int64)


def held_out_batches(
    source: Source,
    data: Data,
    *,
    batch_size: int,
    process_index: int = 0,
    process_count: int = 1,
) -> "HeldOut":
    """The held-out images of one process, in batches of one size; can be iterated repeatedly.

    Each batch has a "weight": 1 for an image, and 0 for a row that fills up the last batch. The
    mean over all images is that of the rows by weight. Args and errors are those of `make_batches`.
    """
    check_sizes(batch_size, process_index, process_count)
    return HeldOut(source, data, batch_size, Share(process_index, process_count))


class HeldOut:
    """The held-out batches, made by `held_out_batches`; `len` is their number.

    Attributes:
        images: the number of held-out images.
    """

    def __init__(self, source: Source, data: Data, batch_size: int, share: Share):
        import_grain()
        self._source, self._batch_size, self._share = source, batch_size, share
        self._indices = held_out_indices(len(source), data.held_out)
        self.images = len(self._indices)

    def __len__(self) -> int:
        return -(-self.images // self._batch_size)

    def __iter__(self) -> Iterator[Batch]:
        """Raises UnreadableImage."""
        if not self.images:
            return
        grain = import_grain()
        numbers = np.full((len(self), self._batch_size), NO_IMAGE)
        numbers.flat[: self.images] = range(self.images)
        batches = (
            grain.MapDataset.source([{"number": row} for row in numbers])
            .map(self._share)
            .map(Load(self._source, self._indices))
        )
        for loaded in in_threads(batches):
            batch = finish(loaded, self._source)
            yield {**batch, "weight": (batch["index"] != NO_IMAGE).astype(np.float32)}
