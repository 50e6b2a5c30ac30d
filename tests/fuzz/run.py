"""Fuzzing of the readers: `python tests/fuzz/run.py --count 100000`.

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
from pathlib import Path

sys.path[:0] = [
    str(Path(__file__).parent),
    *(str(Path(__file__).parents[1] / name) for name in ("", "weights")),
]

from guard import check
from hypothesis import HealthCheck, Phase, given, seed, settings
from targets import TARGETS, Target, read


def write(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def fuzz(target: Target, count: int, start: int) -> Counter[bool]:
    """How many of the examples were read, and refused. Raises Fault for the first bad one, shrunk."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, target.others())
        seen: Counter[bool] = Counter()

        @seed(start)
        @settings(
            max_examples=count,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate, Phase.shrink],
            print_blob=False,
        )
        @given(target.files())
        def run(files: Mapping[str, bytes]) -> None:
            write(folder, files)
            seen[check(lambda folder: read(target, folder), folder)] += 1

        run()
        return seen


def main() -> None:
    """Runs the command."""
    parser = ArgumentParser(prog="python tests/fuzz/run.py", description=__doc__)
    parser.add_argument(
        "--count", type=int, default=100_000, help="examples of all targets (100,000)"
    )
    parser.add_argument("--seed", type=int, default=0, help="(0)")
    parser.add_argument("--only", nargs="+", choices=list(TARGETS), default=list(TARGETS))
    given_ = parser.parse_args()
    total = sum(TARGETS[name].share for name in given_.only)
    failed: list[str] = []
    all_seen: Counter[bool] = Counter()
    for name in given_.only:
        target, began = TARGETS[name], time.perf_counter()
        try:
            seen = fuzz(target, max(1, round(given_.count * target.share / total)), given_.seed)
        except Exception as error:
            failed.append(name)
            notes = "\n  ".join(getattr(error, "__notes__", []))
            print(f"{name}: {type(error).__name__}: {error}\n  {notes}", flush=True)
            continue
        all_seen += seen
        took = time.perf_counter() - began
        print(f"{name}: {seen[True]} read, {seen[False]} refused, {took:.0f} s", flush=True)
    print(f"{all_seen.total()} files: {all_seen[True]} read, {all_seen[False]} refused")
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
