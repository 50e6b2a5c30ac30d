"""The held-out pictures: in a fixed order, neither cropped at random nor flipped."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from ddpm_jax.training.data.batches import THREADS, check_sizes, import_grain
from ddpm_jax.training.data.corrupt import Corrupt, PictureError
from ddpm_jax.training.data.rows import NOWHERE, Batch, Row, Sent, blank, finish, stack
from ddpm_jax.training.data.settings import Data
from ddpm_jax.training.data.source import Source
from ddpm_jax.training.data.split import held_out_indices


def held_out_batches(
    source: Source,
    data: Data,
    *,
    batch_size: int,
    process_index: int = 0,
    process_count: int = 1,
    corrupt: Corrupt | None = None,
) -> "HeldOut":
    """The held-out pictures of one process, in batches of one size; to be iterated repeatedly.

    Each batch has a "weight", 1 for a picture and 0 for a row that fills up the last batch or
    whose picture cannot be read. The mean over all pictures is that of the rows by weight.

    Args and errors are those of `make_batches`; give its `Batches.corrupt` so that unreadable
    pictures are counted together.
    """
    check_sizes(batch_size, process_index, process_count)
    ledger = corrupt or Corrupt(data.max_corrupt, source.name_of)
    return HeldOut(source, data, (batch_size, process_index, process_count), ledger)


@dataclass(frozen=True)
class Held:
    """Held-out batches by number, for grain to read; index -1 is a row with no picture."""

    source: Source
    batches: Int64[np.ndarray, "n rows"]

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> Sent:
        """One batch."""
        return stack([self._row(index) for index in self.batches[number].tolist()])

    def _row(self, index: int) -> Row:
        if index == NOWHERE:
            return blank(self.source)
        try:
            return Row(self.source.picture(index, None), index)
        except PictureError as error:
            return blank(self.source, ((index, str(error)),))


class HeldOut:
    """The held-out batches, made by `held_out_batches`; `len` is their number.

    Attributes:
        corrupt: the unreadable pictures found so far.
        pictures: how many are held out.
    """

    def __init__(self, source: Source, data: Data, rows: tuple[int, int, int], corrupt: Corrupt):
        import_grain()
        self.corrupt = corrupt
        self._source = source
        self._batch_size, self._process, self._processes = rows
        self._indices = held_out_indices(len(source), data.held_out)
        self.pictures = len(self._indices)

    def __len__(self) -> int:
        return -(-self.pictures // self._batch_size)

    def __iter__(self) -> Iterator[Batch]:
        grain = import_grain()
        if not self.pictures:
            return
        filled = np.full(len(self) * self._batch_size, NOWHERE, np.int64)
        filled[: self.pictures] = self._indices
        mine = filled.reshape(len(self), self._processes, -1)[:, self._process]
        options = grain.ReadOptions(THREADS, prefetch_buffer_size=THREADS)
        for sent in grain.MapDataset.source(Held(self._source, mine)).to_iter_dataset(options):
            self.corrupt.add(sent["faults"])
            batch = finish(sent, self._source)
            yield {**batch, "weight": (batch["index"] != NOWHERE).astype(np.float32)}
