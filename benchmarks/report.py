"""Results as text: medians with their spread, in markdown tables."""

import statistics
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from benchmarks.contenders import COMPILE_TARGET, COSTS, OURS
from benchmarks.load import IDLE_SHARE
from benchmarks.models import TARGETS

Result = Mapping[str, Any]

NOTES = """\
Evaluations/s: evaluations of the network a second in the whole sampling loop (DDIM), the median
over rounds; times the batch, pictures. Ours / theirs: the ratio of rates within a round; its median
over rounds, and its quartiles in parentheses. Targets are judged only where the machine was idle
and there were at least 9 rounds. First call: what the first call of the loop takes longer than the
second, with cold caches; for ddpm_jax and torch.compile that is compilation. Peak memory: of the
library's own process (and of the device, if it is a GPU), libraries, weights and compilation
included. Others: share of all cores that other processes used during the rounds."""

ENOUGH = 9
"""Rounds that a figure needs to be quoted."""


class Spread(NamedTuple):
    """A median between its quartiles."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.3g} ({self.low:.3g} to {self.high:.3g})"

    def percent(self) -> str:
        """The same of shares, in percent."""
        low, high = (f"{100 * value:.1f}" for value in (self.low, self.high))
        return f"{100 * self.median:.1f} % ({low} to {high})"


def spread(values: list[float]) -> Spread:
    """Median and quartiles."""
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, low, high)


def rate(result: Result, name: str) -> Spread:
    """Evaluations a second."""
    return spread([result["evaluations"] / took[name] for took in result["rounds"]])


def ratio(result: Result, name: str) -> Spread:
    """Our rate over a contender's."""
    return spread([took[name] / took[OURS] for took in result["rounds"]])


def cost(result: Result, loop: str, under: str) -> Spread:
    """What a loop takes over another, as a share."""
    return spread([took[loop] / took[under] - 1 for took in result["rounds"]])


def idle(result: Result, share: str = "others_share") -> bool | None:
    """Whether the machine was; None where that is not known."""
    used = result.get(share)
    return None if used is None else used <= IDLE_SHARE


def markdown(document: Mapping[str, Any]) -> str:
    """The whole report."""
    results = document["configurations"]
    parts = [
        "# Sampling: ddpm_jax and diffusers",
        *_machine(document["machine"]),
        *_verdict(results),
    ]
    sampling = [result for result in results if result["part"] == "sampling"]
    costs = [result for result in results if result["part"] == "costs"]
    if sampling:
        parts += ["## Against diffusers", _table(SAMPLING_COLUMNS, _sampling_rows(sampling))]
    if costs:
        parts += ["## What our own loop costs", _table(COST_COLUMNS, _cost_rows(costs))]
    return "\n\n".join([*parts, *_runs(results), NOTES]) + "\n"


SAMPLING_COLUMNS = (
    *("UNet", "batch", "precision", "library", "evaluations/s"),
    *("ours / theirs", "target", "first call, s", "peak memory, GiB", "others"),
)
COST_COLUMNS = ("UNet", "batch", "precision", "cost", "measured", "target", "others")


def _machine(machine: Mapping[str, Any]) -> Iterator[str]:
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    lines = [
        f"CPU: {machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB",
        f"GPU: {machine['gpu'] or 'none'}",
        f"System: {machine['system']}, Python {machine['python']}",
        f"Libraries: {versions}",
    ]
    settings = [f"{name}={value}" for name, value in machine["settings"].items()]
    yield "\n".join(f"- {line}" for line in [*lines, *(f"Set: {s}" for s in settings)])


def _verdict(results: list[Result]) -> Iterator[str]:
    """What a reader must know before the figures."""
    if any(result["model"] == "tiny" for result in results):
        yield "Fast mode: this shows that the benchmark runs; its figures mean nothing."
    busy = sum(idle(result) is False for result in results)
    if busy:
        yield (
            f"The machine was not idle in {busy} of {len(results)} configurations: others used "
            f"more than {100 * IDLE_SHARE:.0f} % of its cores. torch suffers more from that than "
            "we do: the ratios flatter us, and are to be measured again on an idle machine."
        )
    if any(idle(result) is None for result in results):
        yield "Whether the machine was idle is not known for all configurations."
    few = sorted({_rounds(result) for result in results if _rounds(result) < ENOUGH})
    if few:
        yield f"Fewer than {ENOUGH} rounds ({', '.join(map(str, few))}): not to be quoted."


def _rounds(result: Result) -> int:
    return len(result.get("rounds", []))


def _table(columns: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    lines = [columns, tuple("---" for _ in columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _sampling_rows(results: list[Result]) -> Iterator[tuple[str, ...]]:
    for result in results:
        head = (result["model"], str(result["batch"]), result["precision"])
        for name, entry in result["contenders"].items():
            if "error" in entry:
                failed = f"not measured: {entry['error'].replace('|', '/')}"
                yield (*head, name, failed, *[""] * 5)
                continue
            yield (
                *head,
                name,
                f"{rate(result, name).median:.4g}",
                *_against(result, name),
                _first_call(result, name, entry),
                _memory(entry["memory"]),
                _others(result),
            )


def _against(result: Result, name: str) -> tuple[str, str]:
    """The ratio, and the one that we want."""
    if name == OURS or "error" in result["contenders"][OURS]:
        return "", ""
    on_cpu = (result["model"], result["precision"], result["device"]) == (
        "cifar10",
        "float32",
        "cpu",
    )
    target = TARGETS.get(result["batch"]) if on_cpu and name == "diffusers" else None
    measured = ratio(result, name)
    if target is None:
        return str(measured), ""
    return str(measured), _judged(result, f"{target}", measured.median >= target)


def _judged(result: Result, target: str, met: bool) -> str:
    """The target, and whether it is met where the figure can be trusted."""
    if not idle(result) or _rounds(result) < ENOUGH:
        return target
    return f"{target}, {'met' if met else 'missed'}"


def _first_call(result: Result, name: str, entry: Result) -> str:
    seconds = entry["compile_seconds"]
    if name != OURS or result["device"] != "cpu" or result["model"] != "cifar10":
        return f"{seconds:.1f}"
    wanted = f"target under {COMPILE_TARGET:.0f}"
    if not idle(entry, "compile_others_share"):
        return f"{seconds:.1f} ({wanted}; not idle)"
    return f"{seconds:.1f} ({_judged(result, wanted, seconds < COMPILE_TARGET)})"


def _memory(memory: Mapping[str, int]) -> str:
    return ", ".join(
        f"{size / 2**30:.2f}" if where == "process" else f"{size / 2**30:.2f} on the {where}"
        for where, size in memory.items()
    )


def _others(result: Result) -> str:
    share = result["others_share"]
    told = "not known" if share is None else f"{100 * share:.0f} %"
    return f"{told}, not idle" if idle(result) is False else told


def _cost_rows(results: list[Result]) -> Iterator[tuple[str, ...]]:
    for result in results:
        head = (result["model"], str(result["batch"]), result["precision"])
        error = result["contenders"][OURS].get("error")
        if error:
            yield (*head, "all", f"not measured: {error}", "", "")
            continue
        for name, (loop, under, target) in COSTS.items():
            measured = cost(result, loop, under)
            wanted = "" if target is None else f"at most {100 * target:.0f} %"
            met = target is None or measured.median <= target
            target_cell = _judged(result, wanted, met) if wanted else ""
            yield (*head, name, measured.percent(), target_cell, _others(result))


def _runs(results: list[Result]) -> Iterator[str]:
    """How each configuration was taken."""
    lines = [
        f"- {result['part']}, {result['model']}, batch {result['batch']}, {result['precision']}: "
        f"{result['taken']}, code {result['code']['digest']} ({result['code']['commit']}), "
        f"{_rounds(result)} rounds of {result.get('evaluations', 0)} evaluations, load average "
        f"{result['load_average']}, {_agreement(result)}"
        for result in results
    ]
    if lines:
        yield "## How each was taken"
        yield "\n".join(lines)


def _agreement(result: Result) -> str:
    apart = [
        f"{name} {max(entry['difference'].values()):.1e}"
        for name, entry in result["contenders"].items()
        if "difference" in entry
    ]
    told = (
        f"outputs differ from ours at most by {', '.join(apart)}" if apart else "nothing compared"
    )
    return f"{told}, {result['params']:,} params"
