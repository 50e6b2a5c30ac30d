"""The readers, fuzzed: `PYTHONPATH=tests python -m tests.fuzz.run`.

Every example is a good file with a few changes. It must be read, or refused with a ValueError or an
OSError, within seconds, within twice its size of memory, without running code and without opening
other files (`guard.py`). Hypothesis makes the examples and shrinks what fails.
"""

import sys
import tempfile
import time
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fuzz import guard
from tests.fuzz.targets import TARGETS, Target, read


def write(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def fuzz(target: Target, count: int, start: int) -> Counter[bool]:
    """How many of the examples were read (True), and refused (False).

    Raises:
        guard.Fault: for the first bad one, shrunk; its note has the files.
    """
    seen: Counter[bool] = Counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, target.others())

        def run(files: Mapping[str, bytes]) -> None:
            write(folder, files)
            seen[guard.check(partial(read, target), folder)] += 1

        limits = settings(
            max_examples=count,
            deadline=None,  # the guard has its own
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate, Phase.shrink],
            print_blob=False,
            report_multiple_bugs=False,
        )
        seed(start)(limits(given(target.files())(run)))()
    return seen


def main() -> None:
    """Runs the command."""
    parser = ArgumentParser(prog="python -m tests.fuzz.run", description=__doc__)
    parser.add_argument("--count", type=int, default=100_000, help="files in all (100,000)")
    parser.add_argument("--seed", type=int, default=0, help="(0)")
    parser.add_argument("--only", nargs="+", choices=list(TARGETS), default=list(TARGETS))
    options = parser.parse_args()
    shares = {name: TARGETS[name].share for name in options.only}
    failed: list[str] = []
    everything: Counter[bool] = Counter()
    for name, share in shares.items():
        count, began = round(options.count * share / sum(shares.values())), time.perf_counter()
        try:
            seen = fuzz(TARGETS[name], max(1, count), options.seed)
        except guard.Fault as fault:
            failed.append(name)
            print(f"{name}: {fault}", *getattr(fault, "__notes__", []), sep="\n  ", flush=True)
            continue
        everything += seen
        seconds = time.perf_counter() - began
        print(f"{name}: {seen[True]} read, {seen[False]} refused, {seconds:.0f} s", flush=True)
    print(f"{everything.total()} files: {everything[True]} read, {everything[False]} refused")
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
