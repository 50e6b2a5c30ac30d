"""Who is measured: libraries, and the loops of ours that the costs are made of."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

OURS = "ddpm_jax"


@dataclass(frozen=True)
class Contender:
    """A library with its settings; `settings` are arguments of its runner."""

    library: str
    settings: dict[str, Any] = field(default_factory=dict)


CONTENDERS = {
    OURS: Contender("jax"),
    "diffusers": Contender("torch"),
    "channels_last": Contender("torch", {"channels_last": True}),
    "torch.compile": Contender("torch", {"compiled": True}),
}
"""By name in tables; "channels_last" is diffusers with torch's channels-last memory."""

AGAINST = ("diffusers", "torch.compile")
"""Whom we are measured against unless told."""

COSTS = {
    "loop over network": ("loop", "network", 0.03),
    "bar over pipeline": ("pipeline and bar", "pipeline", 0.01),
    "pipeline over loop": ("pipeline", "loop", None),
}
"""What a cost is: the time of the first loop over that of the second, less 1; and its target."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of a benchmark: what takes turns in its rounds.

    Attributes:
        task: whose runners, "sampling" or "training".
        unit: what a window has so many of.
        compared: what of two libraries is compared, if they take part.
        loops: our own that take turns; none: the "loop" of every library.
        least: units that a window has at least.
    """

    task: str
    unit: str
    compared: str = ""
    loops: tuple[str, ...] = ()
    least: int = 2


PARTS: Mapping[str, Part] = {
    "sampling": Part(task="sampling", unit="evaluations", compared="outputs"),
    "costs": Part(
        task="sampling",
        unit="evaluations",
        loops=("network", "loop", "pipeline", "pipeline and bar"),
    ),
    "training": Part(
        task="training", unit="updates", compared="loss and gradient norm of the first update"
    ),
    "input": Part(task="training", unit="updates", loops=("fed", "loop"), least=8),
}
"""By name. Of "costs": the jitted network called again and again, the compiled loop, the pipeline
without and with its progress bar. Of "input": training fed from the pictures, and from memory; its
windows are long beside the batches that stand ready when they begin."""

COMPILE_TARGET = 5.0
"""Seconds that our compilation may take."""


def torch_missing() -> list[str]:
    """What the other side needs and is not installed."""
    return [name for name in ("torch", "diffusers") if find_spec(name) is None]


EXCEPT = {("torch.compile", "grad_norm"): 1e-2}
"""On a CPU the loss is that of eager to 1e-7, and the gradients' norm half a percent off. It is
timed all the same, and the table tells the difference."""


def tolerance(precision: str, device: str, dropout: float = 0.0) -> float:
    """How far two libraries' outputs may be apart, relative to the largest value.

    float32 on a CPU differs by the order of sums; on a GPU both sides multiply in TF32 (10 bits),
    and bfloat16 has 7 bits: errors of 2^-11 and 2^-8 a layer, over some 50 layers. With dropout,
    which each side draws for itself, means over eight pictures differ by 0.2 %.
    """
    if precision == "bfloat16":
        return 1e-1
    if dropout:
        return 2e-2
    return 2e-5 if device == "cpu" else 1e-2
