"""Rounds: contenders take turns, and their times are compared within a round.

A contender is a function of n that runs n units (network evaluations, updates) and waits for their
end. In round i each runs one window of n units; the order turns by one place a round. With t the
seconds of a window, contender b over contender a is the median over rounds i of

    (1)  t_b(i) / t_a(i)

so that whatever slows the machine for a while slows both sides of a ratio. Quartiles say how much
the ratio varies.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

PAUSE = 0.2
"""Seconds between windows. After its last operation a library's threads spin for a while, and would
take the cores from the next contender; OpenMP's stop within 0.2 s."""

MOST = 1000
"""Units in a window: the rows of the sampling table."""

LEAST = 3
"""Rounds that are taken even where the time is up."""

Run = Callable[[int], object]
Round = Mapping[str, float]
"""Seconds of each contender's window."""


class Spread(NamedTuple):
    """A median and its quartiles."""

    low: float
    median: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"

    def percent(self) -> str:
        low, median, high = (f"{100 * value:.1f}" for value in self)
        return f"{median} % ({low} to {high})"


def spread(values: Sequence[float]) -> Spread:
    low, median, high = np.quantile(values, (0.25, 0.5, 0.75)).tolist()
    return Spread(low, median, high)


def ratio(rounds: Sequence[Round], b: str, a: str) -> Spread:
    """Equation (1)."""
    return spread([took[b] / took[a] for took in rounds])


def turned(names: Sequence[str], i: int) -> list[str]:
    """The order of round i: from the i-th name on, then those before it."""
    start = i % len(names)
    return [*names[start:], *names[:start]]


def seconds(run: Run, units: int) -> float:
    began = time.perf_counter()
    run(units)
    return time.perf_counter() - began


def take(
    runs: Mapping[str, Run],
    units: int,
    rounds: int,
    pause: float = PAUSE,
    left: Callable[[], float] = lambda: math.inf,
) -> list[dict[str, float]]:
    """The seconds of every window. After `LEAST` rounds, one that would last longer than the
    seconds that are left is not begun.
    """
    taken: list[dict[str, float]] = []
    for i in range(rounds):
        if i >= LEAST and sum(taken[-1].values()) + pause * len(runs) > left():
            break
        took: dict[str, float] = {}
        for name in turned(list(runs), i):
            time.sleep(pause)
            took[name] = seconds(runs[name], units)
        taken.append(took)
    return taken


def window(runs: Mapping[str, Run], wanted: float, least: int = 2) -> int:
    """The units that the fastest contender runs in the wanted seconds."""
    for run in runs.values():
        run(2)  # what is compiled at the first use is not timed
    fastest = min(seconds(run, 2) / 2 for run in runs.values())
    return int(np.clip(round(wanted / fastest), least, MOST))
