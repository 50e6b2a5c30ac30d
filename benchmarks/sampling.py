"""How fast we sample, beside diffusers on the same machine: `python -m benchmarks.sampling`.

Writes OUT.json with every window's seconds and OUT.md with medians, after each configuration; run
again, it goes on where it stopped. README.md beside this file says how to read the results.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import machine, report, store
from benchmarks.client import WorkerError
from benchmarks.contenders import AGAINST, CONTENDERS, OURS
from benchmarks.measure import Options, measure
from benchmarks.models import BATCHES, MODELS, PRECISIONS, Configuration, configurations

RESULTS = Path(__file__).resolve().parent / "results"
PARTS = ("sampling", "costs")
FAST = {"rounds": 2, "seconds": 0.02, "pause": 0.0}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; 0 if we could be measured in every configuration."""
    parser = _parser()
    given = parser.parse_args(arguments)
    chosen = _configurations(given)
    out = given.out or RESULTS / ("fast" if given.fast else given.device)
    try:
        results = store.opened(out.with_suffix(".json"), machine.describe(), given.fresh)
    except ValueError as error:
        parser.error(str(error))
    with tempfile.TemporaryDirectory(prefix="ddpm_jax_benchmark_") as scratch:
        try:
            results = _run(chosen, _options(given), results, out, Path(scratch))
        except WorkerError as error:
            parser.error(f"no weights could be made: {error}")
    print(report.markdown(results))
    _say(f"written: {out.with_suffix('.json')} and {out.with_suffix('.md')}")
    ours = [result["contenders"][OURS] for result in results["configurations"]]
    return int(any("error" in entry for entry in ours))


def _run(
    chosen: list[Configuration],
    options: Options,
    results: store.Document,
    out: Path,
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
        _write(results, out)
    _write(results, out)
    return results


def _write(results: store.Document, out: Path) -> None:
    store.write(out.with_suffix(".json"), json.dumps(results, indent=1) + "\n")
    store.write(out.with_suffix(".md"), report.markdown(results))


def _say(told: str) -> None:
    print(time.strftime("%H:%M:%S"), told, file=sys.stderr, flush=True)


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


def _configurations(given: argparse.Namespace) -> list[Configuration]:
    if given.fast:
        return list(configurations("cpu", tuple(given.parts), ("tiny",), (2,), ("float32",)))
    lists = (given.models, given.batches, given.precisions)
    return list(
        configurations(given.device, tuple(given.parts), *(tuple(v) if v else None for v in lists))
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sampling", description=__doc__)
    add = parser.add_argument
    add("--device", choices=tuple(BATCHES), default="cpu")
    add("--parts", nargs="+", choices=PARTS, default=PARTS, help="against others; our own costs")
    add("--models", nargs="+", choices=tuple(MODELS), help="default: the device's usual ones")
    add("--batches", nargs="+", type=_count, help="default: the device's usual ones")
    precisions = sorted({name for names in PRECISIONS.values() for name in names})
    add("--precisions", nargs="+", choices=precisions, help="default: the device's usual ones")
    others = [name for name in CONTENDERS if name != OURS]
    add("--against", nargs="*", choices=others, default=AGAINST, help="none: ours alone")
    add("--compile-mode", choices=("default", "reduce-overhead", "max-autotune"))
    add("--rounds", type=_count, default=9, help="timed windows of each (9)")
    add("--seconds", type=float, default=2.0, help="least length of a window (2)")
    add("--limit", type=float, default=900.0, help="seconds that one request may take (900)")
    add("--out", type=Path, help="files to write, without suffix (benchmarks/results/DEVICE)")
    add("--fresh", action="store_true", help="begin anew, replacing the results in OUT")
    add("--fast", action="store_true", help="a tiny network for seconds: shows that it all runs")
    return parser


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


if __name__ == "__main__":
    sys.exit(main())
