"""Files are written by a second thread, while the devices compute the next batch."""

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from ddpm_jax.cli.image_files import SampledImage

WAITING = 1
"""Batches that wait for the one that is being written. Writing slower than that slows the run, as
otherwise memory would fill up with images."""


class Writer:
    """Saves batches in their order, one at a time, beside the thread that makes them.

    The end of the `with` block waits for all of them, after an error or Ctrl-C too: what is
    computed is kept.

    Args:
        save: writes a batch.
    """

    def __init__(self, save: Callable[[Sequence[SampledImage]], None]):
        self._save = save
        self._pending: deque[Future[None]] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ddpm-jax-writer")

    def put(self, batch: Sequence[SampledImage]) -> None:
        """Hands a batch over. Waits while `WAITING` batches wait; raises the error of an earlier
        one.
        """
        while self._pending and (self._pending[0].done() or len(self._pending) > WAITING):
            self._pending.popleft().result()
        self._pending.append(self._thread.submit(self._save, batch))

    def __enter__(self) -> "Writer":
        """The writer."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        """Waits. Raises the first error of writing unless there is another one already."""
        self._thread.shutdown(wait=True)
        for written in self._pending if kind is None else ():
            written.result()
