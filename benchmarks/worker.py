"""A process that holds one library's network: `python -m benchmarks.worker SPEC`.

SPEC is a JSON object; its "library" is "jax" or "torch", its "task" "sampling" or "training", and
the rest are the constructor's arguments of the runner in `RUNNERS`. Requests come on standard
input, a JSON list [method, arguments] on each line; a JSON object {"value": ...} or {"error": ...}
answers it. Standard output is kept for the answers: what libraries print goes to standard error.
"""

import importlib
import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TextIO


class Runner(Protocol):
    """What a worker can be asked; arguments and answers are JSON."""

    def prepare(self) -> int:
        """Write a UNet with random weights into the folder; gives the number of parameters."""
        ...

    def load(self) -> dict[str, Any]:
        """Read the weights onto the device; gives versions and settings."""
        ...

    def outputs(self, evaluations: int, path: str) -> None:
        """Save what libraries are compared by: after so many evaluations, or the first update."""
        ...

    def first(self) -> float:
        """Seconds that the first run of the loop takes more than a second one: compilation."""
        ...

    def run(self, loop: str, evaluations: int) -> float:
        """Seconds for so many evaluations, or updates, in one of the loops."""
        ...

    def memory(self) -> dict[str, int]:
        """Peak bytes so far, of the process and, on an accelerator, of the device."""
        ...


RUNNERS = {
    ("jax", "sampling"): "jax_runner:JaxRunner",
    ("torch", "sampling"): "torch_runner:TorchRunner",
    ("jax", "training"): "jax_training:JaxTraining",
    ("torch", "training"): "torch_training:TorchTraining",
}


def make_runner(library: str, task: str, **arguments: Any) -> Runner:
    """The runner of a library, imported only here."""
    module, _, name = RUNNERS[library, task].partition(":")
    return getattr(importlib.import_module(f"benchmarks.{module}"), name)(**arguments)


def serve(runner: Callable[[], Runner], requests: TextIO, answers: TextIO) -> None:
    """Answers until the requests end; where no runner can be made, each answer says so."""
    made = None
    for line in requests:
        method, arguments = json.loads(line)
        try:
            made = made or runner()
            answer = {"value": getattr(made, method)(*arguments)}
        except Exception as error:
            traceback.print_exc()
            answer = {"error": reason(error)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def reason(error: Exception) -> str:
    """An error in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"[:300]


def peak_resident() -> int:
    """Most bytes of memory that this process has had resident.

    VmHWM where there is one: ru_maxrss also counts what the process was before exec.
    """
    try:
        status = Path("/proc/self/status").read_text()
        return next(
            int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:")
        )
    except (OSError, StopIteration):
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def main() -> None:
    """Serves on standard input and output."""
    spec = json.loads(sys.argv[1])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    with answers:
        serve(lambda: make_runner(**spec), sys.stdin, answers)


if __name__ == "__main__":
    main()
