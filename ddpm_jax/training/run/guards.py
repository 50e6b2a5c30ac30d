"""What guards a run: its lock, signals, errors with advice, the watch over the loss, a trace."""

import errno
import math
import os
import signal
import threading
import warnings
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ddpm_jax.hub.files import listed
from ddpm_jax.sampling.segments import out_of_memory
from ddpm_jax.training.run.settings import Loop

LOCK_NAME = ".lock"
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
AGREE_EVERY = 10
"""Updates between two times that processes agree whether to stop: each is a message to all."""
WINDOW = 50
"""Updates that a mean loss is taken over: the loss of a batch depends on its timesteps. With the
trained digits, 400 batches of 64 differ by a factor of 3.3 in their loss, and means of 50
of them by 1.1."""
WARM = 10
"""Updates before a trace begins: compilation and the first reads of data are over by then."""


class TrainingError(RuntimeError):
    """The run cannot go on; what was saved before is good."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps other runs out of a folder; the lock ends with the process, however that ends.

    Raises:
        ValueError: another run uses the folder.
        OSError: the folder cannot be written to.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(folder / LOCK_NAME)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(
            f"another run is under way in {folder}: wait for it, end it, or take another folder"
        ) from None
    except NotImplementedError:  # some network file systems have no locks
        warnings.warn(f"{folder} cannot be locked: see that no other run uses it", stacklevel=3)
    try:
        yield
    finally:
        lock.release()


class Stop:
    """Whether a signal asked the run to end.

    Attributes:
        signal: the signal, or None.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def agreed(self, step: int) -> bool:
        """Whether any process was asked, by this step; all processes get the same answer."""
        asked = self.signal is not None
        if jax.process_count() == 1:
            return asked
        if step % AGREE_EVERY:
            return False
        from jax.experimental import multihost_utils

        return bool(np.any(multihost_utils.process_allgather(np.array(asked))))


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Notes the first SIGTERM or SIGINT; the second does what it did before.

    Outside the main thread, where Python allows no handlers, nothing is noted.
    """
    stop, before = Stop(), dict[int, Any]()

    def put_back() -> None:
        while before:
            signal.signal(*before.popitem())

    def ask(number: int, _frame: Any) -> None:
        stop.signal = signal.Signals(number)
        put_back()
        # not by print: the signal may have come in the middle of one
        os.write(2, b"\nstopping after this update; a second signal: without a checkpoint\n")

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            before[number] = signal.signal(number, ask)
    try:
        yield stop
    finally:
        put_back()


def compiled(lowered: Any) -> Any:
    """`lowered.compile()` in another thread: in this one it would keep signals waiting for minutes.

    A signal that raises ends the wait, and the compilation with the process.
    """
    done: Future[Any] = Future()

    def compile_it() -> None:
        try:
            done.set_result(lowered.compile())
        except BaseException as error:
            done.set_exception(error)

    thread = threading.Thread(target=compile_it, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(0.1)  # signals are seen between two waits
    return done.result()


@contextmanager
def explained(out: Path, loop: Loop) -> Iterator[None]:
    """Raises what the block raises; too little room or memory with what to do.

    Raises:
        MemoryError: an update does not fit into the device's memory.
        OSError: the run's folder cannot be written to.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise OSError(
            f"{out} cannot be written to: {error}; what is there is kept, and resume goes on"
        ) from error
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        if out_of_memory(error):
            raise MemoryError(f"out of memory; try {_less_memory(loop)}") from error
        raise


def _less_memory(loop: Loop) -> str:
    # On a CPU, XLA undoes remat.
    ways = [] if loop.remat or jax.default_backend() == "cpu" else ["loop.remat"]
    if loop.dtype == "float32":
        ways.append("loop.dtype bfloat16")
    if loop.batch_size > loop.accumulate:
        ways.append(f"loop.accumulate {2 * loop.accumulate}")
    return ", ".join([*ways, "or a smaller network"])


class Watch:
    """Sees every update's numbers, in order, and stops a run that is lost.

    A loss or gradient that is not finite spoils the params for good. A loss that rises far above
    where it was seldom comes back.

    Args:
        divergence: raise when the mean loss of 50 updates is this many times the lowest such mean;
            0: never.
    """

    def __init__(self, divergence: float):
        self.divergence = divergence
        self._recent: deque[float] = deque(maxlen=WINDOW)
        self._lowest = math.inf

    def see(
        self, step: int, metrics: Mapping[str, float], indices: Sequence[int] | None = None
    ) -> None:
        """The numbers of the update that led to `step`.

        Raises:
            TrainingError: naming the step, the numbers and the images of the batch.
        """
        bad = {name: value for name, value in metrics.items() if not math.isfinite(value)}
        if bad:
            numbers = ", ".join(f"{name} is {value}" for name, value in bad.items())
            raise TrainingError(f"update {step}: {numbers}{_named(indices)}")
        self._recent.append(metrics["loss"])
        if len(self._recent) < WINDOW:
            return
        mean = math.fsum(self._recent) / WINDOW
        self._lowest = min(self._lowest, mean)
        if self.divergence and mean > self.divergence * self._lowest:
            raise TrainingError(
                f"update {step}: the loss diverges, {mean:.3g} over the last {WINDOW} updates, "
                f"{mean / self._lowest:.1f} times the lowest such mean{_named(indices)}"
            )

    def state(self) -> dict[str, Any]:
        """For JSON, which has no infinity."""
        return {"recent": list(self._recent), "lowest": min(self._lowest, 1e300)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from `state()`."""
        self._recent.clear()
        self._recent.extend(state["recent"])
        self._lowest = state["lowest"]


def _named(indices: Sequence[int] | None) -> str:
    return "" if indices is None else f" (images {listed(int(i) for i in indices)})"


class Trace:
    """A profiler's trace of a few updates, which TensorBoard opens.

    Args:
        folder: TensorBoard's.
        step: that the run goes on from.
        count: updates to trace; 0: none.
    """

    def __init__(self, folder: Path, step: int, count: int):
        self.folder = folder
        self.first = step + WARM
        self.last = self.first + count
        self.on = False

    def at(self, step: int) -> None:
        """Starts or ends it, if this is the step."""
        if self.on and step >= self.last:
            self.end()
        elif not self.on and self.first <= step < self.last:
            jax.profiler.start_trace(str(self.folder))
            self.on = True

    def end(self) -> None:
        """Ends it, if it runs."""
        if self.on:
            jax.profiler.stop_trace()
        self.on = False
