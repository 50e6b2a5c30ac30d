"""What grain's worker processes need beside grain: to outlive signals, but not their parent.

A terminal sends Ctrl-C, and a scheduler SIGTERM, to all processes of a job. The training process
answers by saving, and may want one more batch for that, so workers ignore both; it ends them when
it closes its iterator, or exits. Should it be killed, they notice and leave.
"""

import multiprocessing
import os
import pickle
import signal
import tempfile
import threading
import weakref
from multiprocessing.connection import wait
from typing import Any

from ddpm_jax.training.data.rows import Sent
from ddpm_jax.training.data.stream import Stream


class Handed:
    """A stream of batches that worker processes read from a file when they begin.

    What goes through their pipe must be small: if a worker ends before it has read all of that,
    multiprocessing waits for ever.
    """

    def __init__(self, stream: Stream):
        import cloudpickle

        self._stream = stream
        handle, self._path = tempfile.mkstemp(prefix="ddpm_jax-", suffix=".pickle")
        self.remove = weakref.finalize(self, os.unlink, self._path)
        """Removes the file, which all workers have read once each has sent a batch."""
        with os.fdopen(handle, "wb") as file:
            cloudpickle.dump(stream, file)

    def __len__(self) -> int:
        return len(self._stream)

    def __getitem__(self, number: int) -> Sent:
        return self._stream[number]

    def __reduce__(self) -> tuple[Any, ...]:
        return _read, (self._path,)


def _read(path: str) -> Stream:
    with open(path, "rb") as file:
        return pickle.load(file)


def check_main_guard() -> None:
    """RuntimeError in a process that multiprocessing is only just starting: it imports the script
    that it was started by, and that trains where nothing keeps it from it.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise RuntimeError(
            "worker processes import the script that starts them, and this script trains when it "
            'is imported: put what it does under if __name__ == "__main__":, or set data.workers '
            "to 0"
        )


def begin_worker(_index: int, _count: int) -> None:
    """Runs first in each worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_leave_after, args=(parent.sentinel,), daemon=True).start()


def _leave_after(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)


def settle_flags() -> None:
    """Lets grain start workers in programs that do not parse absl's flags, which most do not.

    grain 0.2.17 and 0.2.18 ask for this flag without a fallback (google/grain issue 1355).
    """
    from absl import flags

    name = "grain_enable_multiprocess_worker_profiling"
    if name in flags.FLAGS and not flags.FLAGS.is_parsed():
        flags.FLAGS[name].present = True
