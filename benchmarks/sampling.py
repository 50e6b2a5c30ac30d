"""How fast we sample, beside diffusers on the same machine: `python -m benchmarks.sampling`.

Writes OUT.json with every window's seconds and OUT.md with medians, after each configuration; run
again, it goes on where it stopped. README.md beside this file says how to read the results.
"""

import argparse
import sys
from collections.abc import Sequence

from benchmarks import report
from benchmarks.command import RESULTS, add_options, count, run
from benchmarks.models import BATCHES, MODELS, PRECISIONS, Configuration, configurations

PARTS = ("sampling", "costs")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; 0 if we could be measured in every configuration."""
    parser = _parser()
    given = parser.parse_args(arguments)
    out = given.out or RESULTS / ("fast" if given.fast else given.device)
    return run(parser, given, _configurations(given), out, report.markdown)


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
    add("--batches", nargs="+", type=count, help="default: the device's usual ones")
    precisions = sorted({name for names in PRECISIONS.values() for name in names})
    add("--precisions", nargs="+", choices=precisions, help="default: the device's usual ones")
    add_options(parser, out="DEVICE")
    return parser


if __name__ == "__main__":
    sys.exit(main())
