"""The machine, the options, and the results as JSON and as markdown."""

import importlib.metadata
import json
import os
import platform
import re
import sys
import time
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from benchmarks.contenders import OURS
from benchmarks.rounds import Spread

RESULTS = Path(__file__).resolve().parent / "results"
LIBRARIES = "jax jaxlib flax numpy torch diffusers transformers scikit-learn".split()


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def machine() -> dict[str, Any]:
    """What the results are taken on."""
    gpus = [device.device_kind for device in jax.devices() if device.platform == "gpu"]
    return {
        "cpu": _cpu(),
        "cores": cores(),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "gpus": gpus,
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": {name: found for name in LIBRARIES if (found := _version(name))},
    }


def _cpu() -> str:
    """The processor's name and numbers; a virtual machine's name alone says little."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    fields = dict(re.findall(r"^([\w ]+?)\s*: (.+)$", text, re.MULTILINE))
    name = fields.get("model name", platform.machine())
    return f"{name} (family {fields.get('cpu family')}, model {fields.get('model')})"


def _version(library: str) -> str | None:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None


class Case(NamedTuple):
    """One network at one batch size and precision."""

    network: str
    batch: int
    precision: str


def options(
    program: str, description: str | None, networks: Iterable[str], *, windows: bool = True
) -> ArgumentParser:
    """A parser with the options of all scripts; `windows`: their length is an option."""
    parser = ArgumentParser(prog=f"python -m {program}", description=description)
    add = parser.add_argument
    add("--device", choices=("cpu", "gpu"), help="default: what jax sees")
    add("--models", nargs="+", choices=tuple(networks), help="default: the usual ones")
    add("--batches", nargs="+", type=count, help="images at once; default: the usual ones")
    add("--precisions", nargs="+", choices=("float32", "bfloat16"), help="default: the usual ones")
    add("--rounds", type=count, default=9, help="windows of each contender (9)")
    if windows:
        add("--seconds", type=float, default=2.0, help="length of the fastest one's window (2)")
    add("--no-compile", action="store_true", help="leave torch.compile out")
    add("--fast", action="store_true", help="a tiny network for seconds: does it all run?")
    add("--out", type=Path, help="the JSON file, and .md beside it; --fast writes none by default")
    return parser


def parsed(parser: ArgumentParser, arguments: Sequence[str] | None, name: str) -> Namespace:
    """The options, with the device checked and what --fast implies."""
    given = parser.parse_args(arguments)
    backend = jax.default_backend()
    if given.device not in (None, backend):
        parser.error(f"jax runs on the {backend}; JAX_PLATFORMS=cpu or =cuda chooses the device")
    given.device = backend
    if given.fast:
        given.models, given.batches, given.precisions = ["tiny"], [2], ["float32"]
        given.rounds = 2
        if "seconds" in given:
            given.seconds = 0.02
    elif given.out is None:
        given.out = RESULTS / f"{name}-{slug()}.json"
    return given


def cases(
    given: Namespace, usual: Mapping[str, Sequence[int]], precisions: Sequence[str]
) -> Iterator[Case]:
    """Those that the options ask for; `usual` has the batch sizes of the usual networks."""
    for network in given.models or usual:
        for batch in given.batches or usual.get(network, (1,)):
            for precision in given.precisions or precisions:
                yield Case(network, batch, precision)


def slug() -> str:
    """ "cpu", or the GPU's name as part of a file's name."""
    device = jax.devices()[0]
    kind = "cpu" if device.platform == "cpu" else device.device_kind
    return re.sub(r"[^a-z0-9]+", "-", kind.lower()).strip("-")


def count(text: str) -> int:
    """A whole number of at least 1, as an option has it."""
    value = int(text)
    if value < 1:
        raise ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def say(text: str) -> None:
    print(time.strftime("%H:%M:%S"), text, file=sys.stderr, flush=True)


def begun(given: Namespace) -> dict[str, Any]:
    """A document without results."""
    taken = time.strftime("%Y-%m-%d", time.gmtime())
    found = {"machine": machine(), "taken": taken, "rounds": given.rounds}
    return found | ({"seconds": given.seconds} if "seconds" in given else {})


def write(path: Path | None, document: Mapping[str, Any], text: str) -> None:
    """Writes the JSON file and the markdown beside it; nothing without a path."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".json").write_text(json.dumps(document, indent=1) + "\n")
        path.with_suffix(".md").write_text(text)


def finish(path: Path | None, document: Mapping[str, Any], text: str) -> None:
    """Writes the results and prints the markdown."""
    write(path, document, text)
    print(text, end="")


# Text.


def head(title: str, document: Mapping[str, Any]) -> str:
    """The title, and what the results were taken on."""
    machine = document["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    rounds = document["rounds"]
    windows = f", windows of {document['seconds']:g} s" if "seconds" in document else ""
    few = "" if rounds >= 9 else " Fewer than 9 rounds: not to be quoted."
    lines = [
        f"CPU: {machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB",
        f"GPU: {', '.join(machine['gpus']) or 'none'}",
        f"System: {machine['system']}",
        f"Libraries: {versions}",
        f"Taken: {document['taken']}, {rounds} rounds{windows}.{few}",
    ]
    return "\n- ".join([f"# {title}\n", *lines])


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """In markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def case_cells(row: Mapping[str, Any]) -> list[str]:
    """What every row begins with."""
    return [row["network"], str(row["batch"]), row["precision"]]


def contender_table(
    rows: Iterable[Mapping[str, Any]], unit: str, more: Mapping[str, str] | None = None
) -> str:
    """A row for each contender: its figures, or why it has none; `more`: columns and their keys."""
    more = more or {}
    columns = ["network", "batch", "precision", "library", f"{unit}/s"]
    columns += ["ours / theirs", "first call, s", "difference", *more]
    cells = (
        _contender_cells(row) + [f"{row[key]:.3g}" if key in row else "" for key in more.values()]
        for row in rows
    )
    return table(columns, cells)


def _contender_cells(row: Mapping[str, Any]) -> list[str]:
    cells = [*case_cells(row), row["library"]]
    if "error" in row:
        return [*cells, f"not timed: {row['error'].replace('|', '/')}", "", "", ""]
    versus = apart = ""
    if row["library"] != OURS:
        versus = str(Spread(*row["ratio"]))
        apart = f"{max(row['difference'].values()):.0e}"
    return [*cells, f"{row['rate']:.4g}", versus, f"{row['first_call']:.1f}", apart]
