"""SIGTERM and Ctrl-C end a run in order: the first after the update, the second at once."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Stop:
    """Whether a signal asked the run to end.

    Attributes:
        signal: the signal, or None.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    @property
    def asked(self) -> bool:
        """Whether one did."""
        return self.signal is not None


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Notes the first SIGTERM or SIGINT, and leaves the second to whoever had it before.

    Outside the main thread, where Python allows no handlers, nothing is noted.
    """
    stop, before = Stop(), dict[int, Any]()

    def put_back() -> None:
        while before:
            signal.signal(*before.popitem())

    def ask(number: int, _frame: Any) -> None:
        stop.signal = signal.Signals(number)
        put_back()

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            before[number] = signal.signal(number, ask)
    try:
        yield stop
    finally:
        put_back()
