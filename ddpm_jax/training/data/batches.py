"""The endless stream of training batches.

The pictures are shuffled anew each epoch, and the epochs laid end to end. What stands at position
n of that stream, crop and flip included, follows from the seed and n alone (see `stream`), so that

    batch k of size B      positions kB, ..., kB + B - 1
    process p of P         rows pB/P, ..., (p + 1)B/P - 1 of it
    the state              the next position, and the pictures found unreadable

and neither the number of workers nor that of processes changes a bit. An unreadable picture gives
its place to another, drawn by that position's random numbers.
"""

import re
from collections.abc import Mapping
from multiprocessing import util
from typing import TYPE_CHECKING, Any

import numpy as np

from ddpm_jax._typing import is_whole
from ddpm_jax.training.data.corrupt import Corrupt
from ddpm_jax.training.data.needs import missing
from ddpm_jax.training.data.rows import NOWHERE, Batch, Sent, finish
from ddpm_jax.training.data.settings import Data
from ddpm_jax.training.data.source import Source
from ddpm_jax.training.data.split import training_indices
from ddpm_jax.training.data.stream import Order, Stream
from ddpm_jax.training.data.workers import Handed, begin_worker, check_main_guard, settle_flags

if TYPE_CHECKING:
    import grain

THREADS = 2
"""Threads that make batches where there are no workers; each is one batch ahead."""

AHEAD = 2
"""Batches that each worker keeps ready."""


def make_batches(
    source: Source,
    data: Data,
    *,
    batch_size: int,
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
    corrupt: Corrupt | None = None,
) -> "Batches":
    """The training batches of one process, without end; see the module for their order.

    Args:
        source: what `open_source(data)` gave.
        data: the settings.
        batch_size: pictures in a batch, of all processes together. May be more than there are.
        seed: of the order, the crops and the flips; the same in all processes.
        process_index: which process this is.
        process_count: how many there are.
        corrupt: a ledger of unreadable pictures to share, such as another iterator's. Each process
            has its own: one counts what it meets itself.

    Raises ValueError for sizes that do not divide, and where held-out pictures leave none;
    ImportError without grain.
    """
    check_sizes(batch_size, process_index, process_count)
    if not is_whole(seed) or seed < 0:
        raise ValueError(f"seed must be a whole number of at least 0, got {seed!r}")
    return Batches(
        source,
        data,
        rows=(batch_size, process_index, process_count),
        seed=seed,
        corrupt=corrupt or Corrupt(data.max_corrupt, source.name_of),
    )


class Batches:
    """An endless iterator over batches, made by `make_batches`.

    Attributes:
        corrupt: the unreadable pictures found so far.
        pictures: how many are trained on: the positions of one epoch.
        position: pictures drawn so far, by all processes together.
    """

    def __init__(
        self, source: Source, data: Data, *, rows: tuple[int, int, int], seed: int, corrupt: Corrupt
    ):
        import_grain()
        check_main_guard()
        self.corrupt = corrupt
        self.position = 0
        self._source = source
        self._data = data
        self._indices = training_indices(len(source), data.held_out)
        self.pictures = len(self._indices)
        self._batch_size, self._process, self._processes = rows
        self._seed = seed
        self._drawn = 0  # since the workers were started
        self._open: list[grain.DatasetIterator[Sent]] = []
        self._handed: Handed | None = None
        # At exit, before multiprocessing ends what is left of the workers, which ignore SIGTERM.
        util.Finalize(self, _close, args=(self._open,), exitpriority=100)

    def __iter__(self) -> "Batches":
        return self

    def __next__(self) -> Batch:
        """The next batch. CorruptPictures where too many pictures cannot be read."""
        if not self._open:
            self._drawn = 0
            self._open.append(iter(self._dataset()))
        try:
            sent = next(self._open[0])
        except Exception as error:  # grain has stopped for good; a new stream would begin here
            self.close()
            if re.search("[Ww]orker process .*was terminated", str(error)):  # as grain words it
                raise ChildProcessError(
                    "a worker process that reads pictures has ended: it was killed, or its own "
                    "error stands above (a script that has workers must do what it does under if "
                    '__name__ == "__main__":). A run that is resumed goes on from its last '
                    "checkpoint; with data.workers 0 there are no such processes"
                ) from error
            raise
        self.position += self._batch_size
        self._drawn += 1
        if self._handed is not None and self._drawn >= self._data.workers:
            self._handed.remove()
        self.corrupt.add(sent["faults"])
        if NOWHERE in sent["index"]:
            raise self.corrupt.error()
        return finish(sent, self._source)

    def state(self) -> dict[str, Any]:
        """What the next batches follow from, as JSON has it; equal in all processes but for
        `corrupt`.
        """
        return {
            "position": self.position,
            "seed": self._seed,
            "pictures": self.pictures,
            "files": self._source.fingerprint,
            "corrupt": [[index, why] for index, why in self.corrupt.found.items()],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on where `state()` was asked for: the next batch is the same to the bit, with any
        number of workers and processes. ValueError for the state of another seed or data set.
        """
        here = self.state()
        if set(state) != set(here):
            raise ValueError(f"an input's state has {sorted(here)}; got {sorted(state)}")
        faults = [
            f"{name} was {state[name]} and is {here[name]}"
            for name in ("seed", "pictures")
            if state[name] != here[name]
        ]
        if state["files"] != here["files"]:
            faults.append("files have come, gone or been renamed")
        if faults:
            raise ValueError(f"the state is of another input: {'; '.join(faults)}")
        self.close()
        self.position = int(state["position"])
        self.corrupt.found = {int(index): str(why) for index, why in state["corrupt"]}

    def close(self) -> None:
        """Ends threads and worker processes; the next batch would start them again."""
        _close(self._open)

    def _dataset(self) -> "grain.IterDataset[Sent]":
        """Batches made ahead of time, by threads or by worker processes."""
        grain = import_grain()
        seeds = np.random.SeedSequence(self._seed).generate_state(2, np.uint64).tolist()
        rows = self._batch_size // self._processes
        stream = Stream(
            source=self._source,
            order=Order(self._indices, seeds[0]),
            seed=seeds[1],
            limit=self._data.max_corrupt,
            start=self.position,
            batch_size=self._batch_size,
            first=self._process * rows,
            rows=rows,
        )
        if not self._data.workers:
            threads = grain.ReadOptions(THREADS, prefetch_buffer_size=THREADS)
            return grain.MapDataset.source(stream).to_iter_dataset(threads)
        settle_flags()
        self._handed = Handed(stream)
        options = grain.MultiprocessingOptions(self._data.workers, per_worker_buffer_size=AHEAD)
        alone = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
        batches = grain.MapDataset.source(self._handed).to_iter_dataset(alone)
        return batches.mp_prefetch(options, worker_init_fn=begin_worker)


def _close(streams: "list[grain.DatasetIterator[Sent]]") -> None:
    """Ends what is open, and forgets it: grain's iterators complain if they outlive its modules."""
    while streams:
        streams.pop().close()


def import_grain() -> Any:
    """The module; ImportError with the install command where it is missing."""
    try:
        import grain
    except ImportError as error:
        raise missing("grain", "the training input") from error
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
