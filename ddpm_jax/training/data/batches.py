"""The endless stream of training batches: a pipeline of grain.

Each epoch is the images in another order, and the epochs are one stream. Batch k of size B holds
its positions kB, ..., kB + B - 1. Their images, crops and flips follow from the seed, B and k
alone, so the state is a number. Process p of P has the rows pB/P, ..., (p + 1)B/P - 1 of each
batch. Neither the number of workers nor that of processes changes a bit.
"""

import pickle
import signal
import sys
import threading
import weakref
from collections.abc import Mapping
from contextlib import ExitStack
from multiprocessing import parent_process
from multiprocessing.connection import wait
from os import _exit
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int64

from ddpm_jax._typing import is_whole
from ddpm_jax.training.data.held_out import training_indices
from ddpm_jax.training.data.loading import (
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

if TYPE_CHECKING:
    import grain

AHEAD = 2
"""Batches that each worker keeps ready: one to hand out, one to load meanwhile."""

WORDS = 3
"""Random numbers of an image: for the flip, and for both sides of the crop."""


def make_batches(
    source: Source,
    data: Data,
    *,
    batch_size: int,
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
) -> "Batches":
    """The training batches of one process, without end; the module documents their order.

    Args:
        source: from `open_source(data)`.
        data: the settings.
        batch_size: images in a batch, of all processes together. May exceed the number of images.
        seed: of the order, the crops and the flips; the same in all processes.
        process_index: which process this is.
        process_count: the number of processes.

    Raises ValueError for sizes that do not divide, and if all images are held out; ImportError
    without grain.
    """
    check_sizes(batch_size, process_index, process_count)
    if not is_whole(seed) or seed < 0:
        raise ValueError(f"seed must be a whole number of at least 0, got {seed!r}")
    return Batches(source, data, batch_size, Share(process_index, process_count), seed)


class Batches:
    """An endless iterator over batches, made by `make_batches`.

    Attributes:
        images: the number of images that are trained on: the positions of one epoch.
        position: images drawn so far, by all processes together.
    """

    def __init__(self, source: Source, data: Data, batch_size: int, share: Share, seed: int):
        import_grain()
        check_main_guard()
        if data.workers:
            _check_script()
        self.position = 0
        self._source = source
        self._indices = training_indices(len(source), data.held_out)
        self.images = len(self._indices)
        self._batch_size, self._share = batch_size, share
        self._seed, self._workers = seed, data.workers
        self._open: list[grain.DatasetIterator[Batch]] = []  # none or one
        self._resources = ExitStack()
        # Also at exit: grain's iterators must be gone before the interpreter ends its modules.
        weakref.finalize(self, self._resources.close)

    def __iter__(self) -> "Batches":
        return self

    def __next__(self) -> Batch:
        """The next batch.

        Raises:
            UnreadableImage: names the image. The stream stays where it is.
        """
        if not self._open:
            self._start()
        try:
            loaded = next(self._open[0])
        except Exception:
            self.close()
            raise
        self.position += self._batch_size
        return finish(loaded, self._source)

    def state(self) -> dict[str, Any]:
        """What decides the next batches, as JSON; equal in all processes."""
        return {
            "position": self.position,
            "batch_size": self._batch_size,
            "seed": self._seed,
            "images": self.images,
            "files": self._source.fingerprint,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continues from a `state()`: the next batch is the same to the bit, with any number of
        workers and processes. ValueError for the state of another batch size, seed or data set.
        """
        here = self.state()
        if set(state) != set(here):
            raise ValueError(f"an input's state has {sorted(here)}; got {sorted(state)}")
        faults = [
            f"{name} was {state[name]} and is {here[name]}"
            for name in ("batch_size", "seed", "images")
            if state[name] != here[name]
        ]
        if state["files"] != here["files"]:
            faults.append("files were added, removed or renamed")
        if faults:
            raise ValueError(f"the state is of another input: {'; '.join(faults)}")
        self.close()
        self.position = int(state["position"])

    def close(self) -> None:
        """Ends threads and worker processes; the next batch starts them again."""
        self._resources.close()

    def _start(self) -> None:
        iterator = iter(self._pipeline())
        self._open.append(iterator)
        self._resources.callback(self._open.clear)
        self._resources.callback(iterator.close)

    def _pipeline(self) -> "grain.IterDataset[Batch]":
        """From the position on. All that is random comes before the processes' shares."""
        grain = import_grain()
        # grain takes seeds of 32 bits, and seed + 1 would have the orders of seed, one epoch later.
        (seed,) = np.random.SeedSequence(self._seed).generate_state(1).tolist()
        positions = grain.MapDataset.range(self.images).seed(seed).shuffle().repeat()
        # Words are drawn for a whole batch: a random map of images would be called for each image.
        draws = positions.batch(self._batch_size).random_map(_draw)
        left = draws[self.position // self._batch_size :]
        mine, load = left.map(self._share), Load(self._source, self._indices)
        if not self._workers:
            return in_threads(mine.map(load))
        from absl import flags

        alone = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
        if not flags.FLAGS.is_parsed():  # grain 0.2.18 reads one (google/grain issue 1355)
            flags.FLAGS.mark_as_parsed()
        workers = grain.MultiprocessingOptions(self._workers, per_worker_buffer_size=AHEAD)
        folder = self._resources.enter_context(TemporaryDirectory(prefix="ddpm_jax-"))
        batches = mine.map(Filed(load, folder)).to_iter_dataset(alone)
        return batches.mp_prefetch(workers, worker_init_fn=_begin_worker)


def check_main_guard() -> None:
    """RuntimeError in a process that multiprocessing is just starting: it imports the script that
    started it, and that script trains when it is imported.
    """
    # A child imports the script by this name, and only then learns who its parent is.
    if sys.modules["__mp_main__"].__name__ == "__mp_main__" and parent_process() is None:
        raise RuntimeError(
            "worker processes import the script that starts them, and this script trains when it "
            'is imported: put what it does under if __name__ == "__main__":, or set data.workers '
            "to 0"
        )


def _check_script() -> None:
    """RuntimeError if workers could not import the script that this process runs."""
    main = sys.modules["__main__"]
    file = None if main.__spec__ else getattr(main, "__file__", None)  # None: they import nothing
    if file is not None and not Path(file).exists():
        raise RuntimeError(
            f"worker processes import the script that starts them, and {file} is not a file: save "
            "the script in one, or set data.workers to 0"
        )


def _draw(number: Int64[np.ndarray, "b"], rng: np.random.Generator) -> Batch:
    """The numbers of a batch's images, with random words for each."""
    # A bit generator's own numbers stay the same from one NumPy to the next.
    words = rng.bit_generator.random_raw(WORDS * len(number))
    return {"number": number, "words": words.reshape(-1, WORDS)}


class Filed:
    """A `Load` that worker processes read from a file when they start.

    Their pipe must only get little. If a worker ends before it has read all that is sent, as in a
    script without `if __name__ == "__main__":`, multiprocessing waits for it without end.
    """

    def __init__(self, load: Load, folder: str):
        self._path = Path(folder, "load.pickle")
        self._path.write_bytes(pickle.dumps(load))

    def __call__(self, batch: Batch) -> Batch:
        """As `Load`; in a worker this is one."""
        return _unpickled(self._path)(batch)

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled, (self._path,)


def _unpickled(path: Path) -> Load:
    return pickle.loads(path.read_bytes())


def _begin_worker(_index: int, _count: int) -> None:
    """Runs first in each worker process, which outlives signals, but not its parent.

    A terminal sends Ctrl-C, and a job scheduler SIGTERM, to all processes of a job. The training
    process then saves and may need one more batch, so workers ignore both. It ends them when it
    closes the iterator. If it is killed, they end too.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_exit_after, args=(parent.sentinel,), daemon=True).start()


def _exit_after(sentinel: int) -> None:
    wait([sentinel])
    _exit(1)
