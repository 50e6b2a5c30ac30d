"""The results of sampling as text."""

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.contenders import COMPILE_TARGET, COSTS, OURS
from benchmarks.models import TARGETS
from benchmarks.tables import (
    Result,
    contender_table,
    cost,
    doubts,
    head,
    how_taken,
    idle,
    judged,
    machine_facts,
    others_cell,
    rate,
    table,
)

NOTES = """\
Evaluations/s: evaluations of the network a second in the whole sampling loop (DDIM), the median
over rounds; times the batch, pictures. Ours / theirs: the ratio of rates within a round; its median
over rounds, and its quartiles in parentheses. Targets are judged only where the machine was idle
and there were at least 9 rounds. First call: what the first call of the loop takes longer than the
second, with cold caches; for ddpm_jax and torch.compile that is compilation. Peak memory: of the
library's own process (and of the device, if it is a GPU), libraries, weights and compilation
included. Others: share of all cores that other processes used during the rounds."""


def markdown(document: Mapping[str, Any]) -> str:
    """The whole report."""
    results = document["configurations"]
    parts = [
        "# Sampling: ddpm_jax and diffusers",
        *machine_facts(document["machine"]),
        *doubts(results),
    ]
    sampling = [result for result in results if result["part"] == "sampling"]
    costs = [result for result in results if result["part"] == "costs"]
    if sampling:
        cells = (_rates, _target, _first_call)
        parts += ["## Against diffusers", contender_table(SAMPLING_COLUMNS, sampling, *cells)]
    if costs:
        parts += ["## What our own loop costs", table(COST_COLUMNS, _cost_rows(costs))]
    return "\n\n".join([*parts, *how_taken(results), NOTES]) + "\n"


SAMPLING_COLUMNS = (
    *("UNet", "batch", "precision", "library", "evaluations/s"),
    *("ours / theirs", "target", "first call, s", "peak memory, GiB", "others"),
)
COST_COLUMNS = ("UNet", "batch", "precision", "cost", "measured", "target", "others")


def _rates(result: Result, name: str) -> tuple[str, ...]:
    return (f"{rate(result, name).median:.4g}",)


def _target(result: Result, name: str) -> float | None:
    on_cpu = (result["model"], result["precision"], result["device"]) == (
        "cifar10",
        "float32",
        "cpu",
    )
    return TARGETS.get(result["batch"]) if on_cpu and name == "diffusers" else None


def _first_call(result: Result, name: str, entry: Result) -> str:
    seconds = entry["compile_seconds"]
    if name != OURS or result["device"] != "cpu" or result["model"] != "cifar10":
        return f"{seconds:.1f}"
    wanted = f"target under {COMPILE_TARGET:.0f}"
    if not idle(entry, "compile_others_share"):
        return f"{seconds:.1f} ({wanted}; not idle)"
    return f"{seconds:.1f} ({judged(result, wanted, seconds < COMPILE_TARGET)})"


def _cost_rows(results: list[Result]) -> Iterator[tuple[str, ...]]:
    for result in results:
        error = result["contenders"][OURS].get("error")
        if error:
            yield (*head(result), "all", f"not measured: {error}", "", "")
            continue
        for name, (loop, under, target) in COSTS.items():
            measured = cost(result, loop, under)
            wanted = "" if target is None else f"at most {100 * target:.0f} %"
            met = target is None or measured.median <= target
            target_cell = judged(result, wanted, met) if wanted else ""
            yield (*head(result), name, measured.percent(), target_cell, others_cell(result))
