"""Libraries that are compared: the same weights, the same outputs, and then their rates."""

import statistics
import time
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from benchmarks import rounds

OURS = "ddpm_jax"


class Contender(Protocol):
    """A library's loop."""

    def run(self, units: int) -> None:
        """Runs so many evaluations or updates, and waits for their end."""
        ...

    def outputs(self) -> dict[str, Any]:
        """Arrays or numbers that all contenders must agree on. Asked for after two units."""
        ...


def weights(draw: str, *arguments: Any) -> Path | None:
    """Weights that a function of `benchmarks.torch_side` draws for both libraries; None where torch
    is not installed.
    """
    try:
        import benchmarks.torch_side as side
    except ImportError:
        return None
    return getattr(side, draw)(*arguments)


def torch_side(kind: str, *arguments: Any) -> Callable[[bool], Contender]:
    """Makes a class of `benchmarks.torch_side`, compiled or not; imports it only when called."""

    def make(compiled: bool) -> Contender:
        import benchmarks.torch_side as side

        return getattr(side, kind)(*arguments, compiled=compiled)

    return make


def compare(
    ours: Contender,
    theirs: Callable[[bool], Contender],
    allowed: Callable[[str, str], float],
    given: Namespace,
) -> list[dict[str, Any]]:
    """A row for each contender: its rate, and ours over it.

    Args:
        ours: an error of ours is raised, that of another is in its row.
        theirs: by `torch_side`.
        allowed: (name, output) -> how far it may be from ours, relative to its largest value. A
            contender that is further off computes something else, and is not timed.
        given: the options `rounds`, `seconds` and `no_compile`.
    """
    makers = {OURS: lambda: ours, **torch_makers(theirs, given)}
    rows, runs = prepared(makers, allowed)
    units = rounds.window(runs, given.seconds)
    taken = rounds.take(runs, units, given.rounds)
    for name in runs:
        rows[name] |= figures(taken, name, units)
    return list(rows.values())


def torch_makers(
    theirs: Callable[[bool], Contender], given: Namespace
) -> dict[str, Callable[[], Contender]]:
    """Makers of the other side's contenders by name."""
    kinds = {"diffusers": False} | ({} if given.no_compile else {"torch.compile": True})
    return {name: partial(theirs, compiled) for name, compiled in kinds.items()}


def prepared(
    makers: Mapping[str, Callable[[], Contender]], allowed: Callable[[str, str], float]
) -> tuple[dict[str, dict[str, Any]], dict[str, rounds.Run]]:
    """The beginning of each contender's row, and the runs of those that may be timed.

    Args:
        makers: of the contenders, ours first.
        allowed: as in `compare`.
    """
    rows: dict[str, dict[str, Any]] = {name: {"library": name} for name in makers}
    runs: dict[str, rounds.Run] = {}
    expected: dict[str, Any] = {}
    for name, make in makers.items():
        began = time.perf_counter()
        try:
            contender = make()
            first, second = (rounds.seconds(contender.run, 1) for _ in range(2))
            rows[name]["first_call"] = first - second
            outputs = contender.outputs()
            expected = expected or outputs
            rows[name]["difference"] = differences(outputs, expected)
            check(rows[name]["difference"], partial(allowed, name))
            runs[name] = contender.run
        except Exception as error:
            if name == OURS:
                raise
            rows[name]["error"] = one_line(error)
        rows[name]["prepared"] = time.perf_counter() - began
    return rows, runs


def figures(taken: Sequence[rounds.Round], name: str, units: int) -> dict[str, Any]:
    """What a row says of a contender's windows."""
    times = [took[name] for took in taken]
    return {
        "rate": statistics.median(units / t for t in times),
        "ratio": rounds.ratio(taken, name, OURS),
        "units": units,
        "seconds": times,
    }


def differences(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, float]:
    """Largest difference over largest value, of each output; NaN where there is one."""
    return {
        what: float(np.abs(theirs[what] - ours[what]).max() / np.abs(ours[what]).max())
        for what in ours
    }


def check(apart: Mapping[str, float], allowed: Callable[[str], float]) -> None:
    """ValueError for an output that is further from ours than allowed; NaN is."""
    far = [
        f"{what} by {value:.1e}, {allowed(what):.0e} is allowed"
        for what, value in apart.items()
        if not value <= allowed(what)
    ]
    if far:
        raise ValueError(f"outputs differ from ours: {'; '.join(far)}")


def one_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"[:300]


def tolerance(precision: str, device: str, dropout: float = 0.0) -> float:
    """How far outputs of two libraries may be apart, relative to the largest value.

    float32 on a CPU differs by the order of sums. On a GPU both sides multiply in TF32 (10 bits),
    and bfloat16 has 7 bits: errors of 2^-11 and 2^-8 a layer, over some 50 layers. Dropout is drawn
    by each side for itself: means over eight images differed by 0.2 %.
    """
    if precision == "bfloat16":
        return 1e-1
    if dropout:
        return 2e-2
    return 2e-5 if device == "cpu" else 1e-2
