"""What the benchmarks' commands share: options, measuring what is missing, and writing it."""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks import machine, store
from benchmarks.client import WorkerError
from benchmarks.contenders import AGAINST, CONTENDERS, OURS
from benchmarks.measure import Options, measure
from benchmarks.models import Configuration

RESULTS = Path(__file__).resolve().parent / "results"
FAST = {"rounds": 2, "seconds": 0.02, "pause": 0.0}

Report = Callable[[Mapping[str, Any]], str]


def run(
    parser: argparse.ArgumentParser,
    given: argparse.Namespace,
    chosen: list[Configuration],
    out: Path,
    report: Report,
) -> int:
    """Measures, writes and prints; 0 if we could be measured in every configuration."""
    try:
        results = store.opened(out.with_suffix(".json"), machine.describe(), given.fresh)
    except ValueError as error:
        parser.error(str(error))
    with tempfile.TemporaryDirectory(prefix="ddpm_jax_benchmark_") as scratch:
        try:
            results = _measure(chosen, _options(given), results, out, report, Path(scratch))
        except WorkerError as error:
            parser.error(f"no weights could be made: {error}")
    print(report(results))
    _say(f"written: {out.with_suffix('.json')} and {out.with_suffix('.md')}")
    ours = [result["contenders"][OURS] for result in results["configurations"]]
    return int(any("error" in entry for entry in ours))


def _measure(
    chosen: list[Configuration],
    options: Options,
    results: store.Document,
    out: Path,
    report: Report,
    scratch: Path,
) -> store.Document:
    """Measures what is missing, and writes as it goes."""
    digest = machine.digest()
    for i, configuration in enumerate(chosen):
        place = f"[{i + 1}/{len(chosen)}] {configuration}"
        if store.find(results, configuration, digest, options.as_dict()):
            _say(f"{place}: there already")
            continue
        result = measure(
            configuration, options, scratch, lambda told, at=place: _say(f"{at}: {told}")
        )
        results = store.add(results, configuration, result)
        _write(results, out, report)
    _write(results, out, report)
    return results


def _write(results: store.Document, out: Path, report: Report) -> None:
    store.write(out.with_suffix(".json"), json.dumps(results, indent=1) + "\n")
    store.write(out.with_suffix(".md"), report(results))


def _say(told: str) -> None:
    print(time.strftime("%H:%M:%S"), told, file=sys.stderr, flush=True)


def add_options(parser: argparse.ArgumentParser, out: str) -> None:
    """The options that all commands have; `out` says where results go by default."""
    add = parser.add_argument
    others = [name for name in CONTENDERS if name != OURS]
    add("--against", nargs="*", choices=others, default=AGAINST, help="none: ours alone")
    add("--compile-mode", choices=("default", "reduce-overhead", "max-autotune"))
    add("--rounds", type=count, default=9, help="timed windows of each (9)")
    add("--seconds", type=float, default=2.0, help="least length of a window (2)")
    add("--limit", type=float, default=900.0, help="seconds that one request may take (900)")
    add("--out", type=Path, help=f"files to write, without suffix (benchmarks/results/{out})")
    add("--fresh", action="store_true", help="begin anew, replacing the results in OUT")
    add("--fast", action="store_true", help="a tiny network for seconds: shows that it all runs")


def _options(given: argparse.Namespace) -> Options:
    against = tuple(given.against)
    if given.fast:
        return Options(against=against, **FAST)
    return Options(
        rounds=given.rounds,
        seconds=given.seconds,
        against=against,
        compile_mode=given.compile_mode,
        limit=given.limit,
    )


def count(text: str) -> int:
    """A whole number of at least 1, as an option has it."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value
