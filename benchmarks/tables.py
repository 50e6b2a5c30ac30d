"""What all reports are made of: medians with their spread, and the cells of markdown tables."""

import statistics
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from benchmarks.contenders import OURS, PARTS
from benchmarks.load import IDLE_SHARE

Result = Mapping[str, Any]

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


def machine_facts(machine: Mapping[str, Any]) -> Iterator[str]:
    """A list of what the results were taken on."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    lines = [
        f"CPU: {machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB",
        f"GPU: {machine['gpu'] or 'none'}",
        f"System: {machine['system']}, Python {machine['python']}",
        f"Libraries: {versions}",
    ]
    settings = [f"{name}={value}" for name, value in machine["settings"].items()]
    yield "\n".join(f"- {line}" for line in [*lines, *(f"Set: {s}" for s in settings)])


def doubts(results: list[Result]) -> Iterator[str]:
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
    few = sorted({rounds_of(result) for result in results if rounds_of(result) < ENOUGH})
    if few:
        yield f"Fewer than {ENOUGH} rounds ({', '.join(map(str, few))}): not to be quoted."


def rounds_of(result: Result) -> int:
    """How many there were."""
    return len(result.get("rounds", []))


def table(columns: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    """In markdown."""
    lines = [columns, tuple("---" for _ in columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def head(result: Result) -> tuple[str, str, str]:
    """What every row begins with: UNet, batch, precision."""
    return result["model"], str(result["batch"]), result["precision"]


def contender_table(
    columns: tuple[str, ...],
    results: list[Result],
    rates: Callable[[Result, str], tuple[str, ...]],
    target: Callable[[Result, str], float | None],
    first_call: Callable[[Result, str, Result], str],
) -> str:
    """A row for each library, or why it has no figures.

    Args:
        columns: names of what follows.
        results: of a part in which libraries are compared.
        rates: some cells about a library's speed.
        target: the ratio that we want.
        first_call: a cell about its seconds.
    """

    def rows(result: Result) -> Iterator[tuple[str, ...]]:
        for name, entry in result["contenders"].items():
            if "error" in entry:
                failed = f"not measured: {entry['error'].replace('|', '/')}"
                yield (*head(result), name, failed, *[""] * (len(columns) - 5))
                continue
            yield (
                *head(result),
                name,
                *rates(result, name),
                *_against(result, name, target(result, name)),
                first_call(result, name, entry),
                memory_cell(entry["memory"]),
                others_cell(result),
            )

    return table(columns, (row for result in results for row in rows(result)))


def _against(result: Result, name: str, target: float | None) -> tuple[str, str]:
    """Our rate over the library's, and the one that we want."""
    if name == OURS or "error" in result["contenders"][OURS]:
        return "", ""
    measured = ratio(result, name)
    if target is None:
        return str(measured), ""
    return str(measured), judged(result, f"{target}", measured.median >= target)


def judged(result: Result, target: str, met: bool) -> str:
    """The target, and whether it is met where the figure can be trusted."""
    if not idle(result) or rounds_of(result) < ENOUGH:
        return target
    return f"{target}, {'met' if met else 'missed'}"


def memory_cell(memory: Mapping[str, int]) -> str:
    """Peaks in GiB."""
    return ", ".join(
        f"{size / 2**30:.2f}" if where == "process" else f"{size / 2**30:.2f} on the {where}"
        for where, size in memory.items()
    )


def others_cell(result: Result) -> str:
    """The share of the cores that others used, and whether that is too much."""
    share = result["others_share"]
    told = "not known" if share is None else f"{100 * share:.0f} %"
    return f"{told}, not idle" if idle(result) is False else told


def how_taken(results: list[Result]) -> Iterator[str]:
    """How each configuration was taken."""
    lines = [
        f"- {result['part']}, {result['model']}, batch {result['batch']}, {result['precision']}: "
        f"{result['taken']}, code {result['code']['digest']} ({result['code']['commit']}), "
        f"{rounds_of(result)} rounds of {result.get('evaluations', 0)} "
        f"{PARTS[result['part']].unit}, load average {result['load_average']}, {_agreement(result)}"
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
    compared = PARTS[result["part"]].compared
    told = (
        f"{compared} differ from ours at most by {', '.join(apart)}"
        if apart
        else "nothing compared"
    )
    return f"{told}, {result['params']:,} params"
