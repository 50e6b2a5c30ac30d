"""The endless stream of pictures: what stands at position n, from the seed and n alone.

Epochs are laid end to end, each in an order of its own, so with N pictures position n is the
(n mod N)-th of epoch n div N. Beside its picture, a position has four random words of 64 bits for
the flip, the crop (two) and a replacement. Both come straight from Philox, a generator that counts
(Salmon et al. 2011, doi:10.1145/2063384.2063405): epoch e sorts the pictures by N words of the key
(seed, e), and the words of position n are block n. Nothing depends on what was drawn before, so
any stretch of the stream is made by itself, anywhere.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, UInt64

from ddpm_jax.training.data.corrupt import PictureError
from ddpm_jax.training.data.rows import Row, Sent, blank, stack
from ddpm_jax.training.data.source import Source


class Order:
    """Which picture stands at which position.

    Args:
        indices: the pictures that are trained on.
        seed: of the orders.
    """

    def __init__(self, indices: Int64[np.ndarray, "n"], seed: int):
        self.indices = indices
        self._seed = seed
        self._epochs: dict[int, np.ndarray] = {}

    def __getitem__(self, position: int) -> int:
        """The index of the picture."""
        epoch, place = divmod(position, len(self.indices))
        order = self._epochs.get(epoch)
        if order is None:
            # Kept for two epochs, which batches made side by side may lie in. Threads may be here
            # together: each then makes the same order.
            order = self.indices[permutation(self._seed, epoch, len(self.indices))]
            self._epochs = {epoch: order, **dict(list(self._epochs.items())[:1])}
        return int(order[place])


def permutation(seed: int, epoch: int, count: int) -> Int64[np.ndarray, "n"]:
    """0..count - 1 in the order of an epoch."""
    words = np.random.Philox(key=np.array([seed, epoch], np.uint64)).random_raw(count)
    return np.argsort(words, kind="stable").astype(np.int64)


def draw_words(seed: int, position: int, count: int) -> UInt64[np.ndarray, "count 4"]:
    """The random words of `count` positions from `position` on."""
    key = np.array([seed, 0], np.uint64)
    return np.random.Philox(key=key, counter=position).random_raw(4 * count).reshape(count, 4)


@dataclass(frozen=True)
class Stream:
    """The batches of one process, by number, for grain to read.

    Attributes:
        source: the pictures.
        order: which of them stands where.
        seed: of the crops, flips and replacements.
        limit: how many pictures may be unreadable.
        start: the position at which batch 0 begins.
        batch_size: positions of a batch, of all processes together.
        first: the first of them that is this process's.
        rows: how many of them are.
    """

    source: Source
    order: Order
    seed: int
    limit: int
    start: int
    batch_size: int
    first: int
    rows: int

    def __len__(self) -> int:
        return sys.maxsize

    def __getitem__(self, number: int) -> Sent:
        """Batch `number` of this process."""
        begin = self.start + number * self.batch_size + self.first
        words = draw_words(self.seed, begin, self.rows).tolist()
        return stack([self._row(begin + row, words[row]) for row in range(self.rows)])

    def _row(self, position: int, words: Sequence[int]) -> Row:
        """A picture, or another in place of one that cannot be read; none where too many cannot."""
        index, faults = self.order[position], {}
        while True:
            try:
                return Row(self.source.picture(index, words), index, tuple(faults.items()))
            except PictureError as error:
                faults[index] = str(error)
            if len(faults) > self.limit or len(faults) == len(self.order.indices):
                return blank(self.source, tuple(faults.items()))
            index = self._replacement(words[3], faults)

    def _replacement(self, word: int, faults: dict[int, str]) -> int:
        """A picture that was not tried yet, by the numbers that follow from a word."""
        numbers = np.random.Philox(key=word)
        while True:
            drawn = int(numbers.random_raw()) % len(self.order.indices)
            index = int(self.order.indices[drawn])
            if index not in faults:
                return index
