"""How fast we train, beside a torch loop on the same machine: `python -m benchmarks.training`.

The torch loop is that of diffusers' example, with the same network, batch and precision. Also how
long our loop waits for its pictures. Writes OUT.json with every window's seconds and OUT.md with
medians, after each configuration; run again, it goes on where it stopped. README.md beside this
file says how to read the results.
"""

import argparse
import re
import sys
from collections.abc import Sequence

from benchmarks import machine, training_report
from benchmarks.command import RESULTS, add_options, count, run
from benchmarks.models import Configuration
from benchmarks.training_models import MODELS, PRECISION, USUAL, configurations

PARTS = ("training", "input")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; 0 if we could be measured in every configuration."""
    parser = _parser()
    given = parser.parse_args(arguments)
    name = "training-fast" if given.fast else f"training-{device_name(given.device, machine.gpu())}"
    return run(
        parser, given, _configurations(given), given.out or RESULTS / name, training_report.markdown
    )


def device_name(device: str, gpu: str | None) -> str:
    """ "cpu", or the GPU's name as a file may have it."""
    if device == "cpu" or gpu is None:
        return device
    return re.sub(r"[^a-z0-9]+", "-", gpu.splitlines()[0].rpartition(",")[0].lower()).strip("-")


def _configurations(given: argparse.Namespace) -> list[Configuration]:
    if given.fast:
        return list(configurations("cpu", tuple(given.parts), ("tiny",), 2, "float32"))
    models = tuple(given.models) if given.models else None
    return list(
        configurations(given.device, tuple(given.parts), models, given.batch_size, given.dtype)
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__)
    add = parser.add_argument
    usual = "gpu" if machine.gpu() else "cpu"
    add("--device", choices=tuple(USUAL), default=usual, help=f"({usual})")
    add("--parts", nargs="+", choices=PARTS, default=PARTS, help="against torch; our own input")
    add("--models", nargs="+", choices=tuple(MODELS), help="default: the device's usual ones")
    add("--batch-size", type=count, help="default: the preset's")
    precisions = sorted(set(PRECISION.values()))
    add("--dtype", choices=precisions, help="default: the device's usual one")
    add_options(parser, out="training-DEVICE")
    return parser


if __name__ == "__main__":
    sys.exit(main())
