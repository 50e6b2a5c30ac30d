"""The results of training as text."""

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.contenders import AGAINST, OURS
from benchmarks.tables import (
    Result,
    contender_table,
    cost,
    doubts,
    head,
    how_taken,
    judged,
    machine_facts,
    others_cell,
    rate,
    spread,
    table,
)

CPU_TARGET = 0.7
"""Our rate over eager torch's: the digits, batch 64, float32, on an idle CPU."""
GPU_TARGET = 1.3
"""Our rate over the better of eager and compiled torch: cifar10, batch 128, bfloat16, on a GPU."""
WAITING_TARGET = 0.02
"""The share of its time that a run may wait for its input."""

NOTES = """\
Updates/s: updates of the whole training loop a second, the median over rounds; times the batch,
images/s. Ours / theirs: the ratio of rates within a round; its median over rounds, and its
quartiles in parentheses. The target on a GPU is against the better of the two. Targets are judged
only where the machine was idle and there were at least 9 rounds. First update: what the first
update takes longer than the second, with cold caches; for ddpm_jax and torch.compile that is
compilation. Peak memory: of the library's own process (and of the device, if it is a GPU),
libraries, weights and compilation included. Others: share of all cores that other processes used
during the rounds.

Input: the same loop fed by the input pipeline, with its default workers, and fed with one batch in
memory. Waiting: the share of the fed loop's time in which it waited for a batch; two updates are
under way meanwhile, so that a device starves for less than that. Over memory: what the fed loop
takes longer, its share of the host's cores included. Input alone: images/s of the input where
nothing trains beside it."""

TRAINING_COLUMNS = (
    *("UNet", "batch", "precision", "library", "updates/s", "images/s"),
    *("ours / theirs", "target", "first update, s", "peak memory, GiB", "others"),
)
INPUT_COLUMNS = (
    *("pictures", "batch", "precision", "updates/s", "images/s", "waiting", "target"),
    *("over memory", "input alone, images/s", "others"),
)


def markdown(document: Mapping[str, Any]) -> str:
    """The whole report."""
    results = document["configurations"]
    parts = ["# Training: ddpm_jax and a torch loop", *machine_facts(document["machine"])]
    parts += doubts(results)
    training = [result for result in results if result["part"] == "training"]
    fed = [result for result in results if result["part"] == "input"]
    if training:
        cells = (_rates, _target, _first_update)
        parts += ["## Against a torch loop", contender_table(TRAINING_COLUMNS, training, *cells)]
    if fed:
        parts += ["## Input", table(INPUT_COLUMNS, _input_rows(fed))]
    return "\n\n".join([*parts, *how_taken(results), NOTES]) + "\n"


def _rates(result: Result, name: str) -> tuple[str, ...]:
    updates = rate(result, name).median
    return f"{updates:.4g}", f"{updates * result['batch']:.4g}"


def _target(result: Result, name: str) -> float | None:
    asked = tuple(result[field] for field in ("device", "model", "batch", "precision"))
    if asked == ("cpu", "digits", 64, "float32"):
        return CPU_TARGET if name == "diffusers" else None
    if asked == ("gpu", "cifar10", 128, "bfloat16"):
        return GPU_TARGET if name == _better(result) else None
    return None


def _better(result: Result) -> str | None:
    """The faster of eager and compiled torch; None unless both were measured."""
    entries = result["contenders"]
    if any("error" in entries.get(name, {"error": "not asked for"}) for name in AGAINST):
        return None
    return max(AGAINST, key=lambda name: rate(result, name).median)


def _first_update(_result: Result, _name: str, entry: Result) -> str:
    return f"{entry['compile_seconds']:.1f}"


def _input_rows(results: list[Result]) -> Iterator[tuple[str, ...]]:
    for result in results:
        error = result["contenders"][OURS].get("error")
        if error:
            yield (*head(result), f"not measured: {error}", *[""] * (len(INPUT_COLUMNS) - 4))
            continue
        waiting = spread(result["input"]["waiting"])
        wanted = f"at most {100 * WAITING_TARGET:.0f} %"
        yield (
            *head(result),
            *_rates(result, "fed"),
            waiting.percent(),
            judged(result, wanted, waiting.median <= WAITING_TARGET),
            cost(result, "fed", "loop").percent(),
            f"{result['input']['alone'] * result['batch']:.4g}",
            others_cell(result),
        )
