"""A profiler's trace of a few updates, which TensorBoard opens."""

from pathlib import Path

import jax

WARM = 10
"""Updates before a trace begins: compilation is over by then."""


class Trace:
    """Traces some updates of a run.

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
