"""Watches the loss, and stops a run that is lost.

A loss or gradient that is no finite number spoils the params for good. A loss that rises far above
where it was seldom comes back.
"""

import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

WINDOW = 50
"""Updates that a mean is taken over."""
NAMED = 16
"""Pictures of a bad batch that are named."""


class TrainingError(RuntimeError):
    """The run cannot go on; what was saved before is good."""


class Watch:
    """Sees every update's numbers, in order.

    Args:
        divergence: raise when the mean loss of 50 updates is so many times the lowest such mean;
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
            TrainingError: naming the step, the numbers and the pictures of the batch.
        """
        bad = {name: value for name, value in metrics.items() if not math.isfinite(value)}
        if bad:
            numbers = ", ".join(f"{name} is {value}" for name, value in bad.items())
            raise TrainingError(f"update {step}: {numbers}{_of(indices)}")
        self._recent.append(metrics["loss"])
        if len(self._recent) < WINDOW:
            return
        mean = math.fsum(self._recent) / WINDOW
        self._lowest = min(self._lowest, mean)
        if self.divergence and mean > self.divergence * self._lowest:
            raise TrainingError(
                f"update {step}: the loss diverges, {mean:.3g} over the last {WINDOW} updates, "
                f"{mean / self._lowest:.1f} times the lowest such mean{_of(indices)}"
            )

    def state(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"recent": list(self._recent), "lowest": min(self._lowest, 1e300)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from `state()`."""
        self._recent.clear()
        self._recent.extend(state["recent"])
        self._lowest = state["lowest"]


def _of(indices: Sequence[int] | None) -> str:
    if indices is None:
        return ""
    more = "" if len(indices) <= NAMED else f" and {len(indices) - NAMED} more"
    return f" (pictures {', '.join(str(int(i)) for i in indices[:NAMED])}{more})"
