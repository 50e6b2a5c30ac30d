"""Measuring one configuration: all contenders side by side, in rounds.

Each contender has a process of its own that stays alive. In a round each of them runs the same
number of evaluations, one after the other, in an order that turns from round to round; whatever
slows the machine down for a while slows all of them. Ratios are taken within rounds.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine
from benchmarks.client import Worker, WorkerError, environment
from benchmarks.contenders import CONTENDERS, EXCEPT, OURS, PARTS, Part, tolerance, torch_missing
from benchmarks.load import Snapshot, others_share, snapshot
from benchmarks.models import STEPS, Configuration
from benchmarks.networks import furnish, network_config

COMPARED = 3
"""Evaluations after which samples are compared."""

Stretch = tuple[Snapshot | None, Snapshot | None, float]
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a configuration is measured.

    Attributes:
        rounds: timed windows of each contender.
        seconds: least length of the fastest contender's window.
        against: whom we are measured against, names in `CONTENDERS`.
        compile_mode: the mode of torch.compile.
        pause: seconds between windows, in which thread pools fall asleep.
        limit: seconds that one request to a worker may take.
    """

    rounds: int
    seconds: float
    against: tuple[str, ...]
    compile_mode: str | None = None
    pause: float = 0.2
    limit: float = 900.0

    def as_dict(self) -> dict[str, Any]:
        """The fields as JSON has them."""
        return {**asdict(self), "against": list(self.against)}


def measure(
    configuration: Configuration, options: Options, scratch: Path, say: Say
) -> dict[str, Any]:
    """The result of one configuration, as it stands in the JSON file.

    Raises:
        WorkerError: the weights could not be made. What fails later is in the result.
    """
    folder, params = prepared(configuration, options, scratch)
    result: dict[str, Any] = {
        **configuration.as_dict(),
        "params": params,
        "taken": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "code": machine.code(),
        "options": options.as_dict(),
        "load_average": machine.load_average(),
        "contenders": {},
    }
    part = PARTS[configuration.part]
    names = (OURS,) if part.loops else (OURS, *options.against)
    with ExitStack() as stack:
        workers = {}
        for name in names:
            say(f"{name}: loading and compiling")
            worker, entry = _started(stack, name, configuration, options, folder, scratch)
            result["contenders"][name] = entry
            if worker is not None:
                workers[name] = worker
        _drop_those_that_differ(workers, result["contenders"], configuration, folder)
        loops = _loops(part, workers)
        try:
            result |= _rounds(loops, options, part.least, say) if loops else {}
            if configuration.part == "input" and loops:
                result["input"] = workers[OURS].ask("input", options.rounds, options.seconds)
            for name, worker in workers.items():
                result["contenders"][name]["memory"] = worker.ask("memory")
        except WorkerError as error:  # without one of them there are no rounds
            for name in workers:
                result["contenders"][name]["error"] = f"the rounds broke off: {error}"
    return result


def prepared(configuration: Configuration, options: Options, scratch: Path) -> tuple[Path, int]:
    """A folder with random weights and noise of the pictures' size, and the number of weights.

    The weights are drawn once for each model: by torch where it takes part, so that ours are
    converted from its own, and otherwise by NumPy.
    """
    config = network_config(configuration)
    folder = scratch / configuration.model
    folder.mkdir(exist_ok=True)
    size, channels = config["sample_size"], config.get("in_channels", 3)
    shape = (configuration.batch, size, size, channels)
    np.save(folder / "x_T.npy", np.random.default_rng(0).standard_normal(shape, np.float32))
    furnish(configuration, folder)
    count = folder / "params"
    if not count.exists():
        library = "jax" if torch_missing() or not options.against else "torch"
        spec = _spec(library, {}, configuration, folder)
        if library == "torch":
            spec["device"] = "cpu"  # torch draws there even where it sees no GPU
        with Worker(spec, environment(library, scratch), options.limit) as worker:
            count.write_text(str(worker.ask("prepare")))
    return folder, int(count.read_text())


def _spec(
    library: str, settings: Mapping[str, Any], configuration: Configuration, folder: Path
) -> dict[str, Any]:
    threads = {"threads": machine.cores()} if library == "torch" else {}
    return {
        "library": library,
        "task": PARTS[configuration.part].task,
        "folder": str(folder),
        "config": network_config(configuration),
        "precision": configuration.precision,
        "device": configuration.device,
        "batch": configuration.batch,
        **threads,
        **settings,
    }


def _started(
    stack: ExitStack,
    name: str,
    configuration: Configuration,
    options: Options,
    folder: Path,
    scratch: Path,
) -> tuple[Worker | None, dict[str, Any]]:
    """A worker that has loaded, compiled and saved its outputs; None, and why, if it cannot."""
    contender = CONTENDERS[name]
    if contender.library == "torch" and torch_missing():
        return None, {"error": f"{' and '.join(torch_missing())} not installed"}
    settings = dict(contender.settings)
    if settings.get("compiled"):
        settings["compile_mode"] = options.compile_mode
    spec = _spec(contender.library, settings, configuration, folder)
    worker = stack.enter_context(
        Worker(spec, environment(contender.library, scratch), options.limit)
    )
    try:
        entry = {"versions": worker.ask("load")}
        seconds, stretch = _watched(worker, "first")
        entry["compile_seconds"] = seconds
        entry["compile_others_share"] = others_share([stretch], machine.cores())
        if options.against and PARTS[configuration.part].compared:
            worker.ask("outputs", COMPARED, str(folder / f"{name}.npz"))
    except WorkerError as error:
        return None, {"error": str(error)}
    return worker, entry


def _watched(worker: Worker, method: str, *arguments: Any) -> tuple[float, Stretch]:
    """The answer to a request, and what the machine did meanwhile; own is the worker's time."""
    before, began = snapshot(worker.pid), time.perf_counter()
    answer = worker.ask(method, *arguments)
    seconds = time.perf_counter() - began
    return answer, (before, snapshot(worker.pid), seconds)


def _drop_those_that_differ(
    workers: dict[str, Worker],
    entries: dict[str, dict[str, Any]],
    configuration: Configuration,
    folder: Path,
) -> None:
    """Only who computes what we compute is timed."""
    if OURS not in workers or len(workers) == 1:
        return
    dropout = network_config(configuration).get("dropout", 0.0)
    allowed = tolerance(configuration.precision, configuration.device, dropout)
    ours = np.load(folder / f"{OURS}.npz")
    for name in [name for name in workers if name != OURS]:
        theirs = np.load(folder / f"{name}.npz")
        apart = {what: relative_difference(ours[what], theirs[what]) for what in ours.files}
        entries[name]["difference"] = apart
        if not all(apart[what] <= max(allowed, EXCEPT.get((name, what), 0)) for what in apart):
            entries[name]["error"] = f"outputs differ from ours by {max(apart.values()):.1e}"
            del workers[name]


def relative_difference(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> float:
    """Largest difference over largest value of b; NaN if either has one."""
    return float(np.abs(a - b).max() / np.abs(b).max())


def _loops(part: Part, workers: Mapping[str, Worker]) -> dict[str, tuple[Worker, str]]:
    """What takes turns: the loop of every library, or all of ours."""
    if not part.loops:
        return {name: (worker, "loop") for name, worker in workers.items()}
    return {loop: (worker, loop) for worker in workers.values() for loop in part.loops}


def _rounds(
    loops: Mapping[str, tuple[Worker, str]], options: Options, least: int, say: Say
) -> dict[str, Any]:
    """Seconds of every window, and the share of the cores that others used in them."""
    evaluations = _window(loops, options.seconds, least)
    rounds, stretches = [], []
    for i in range(options.rounds):
        took = {}
        for name in turned(list(loops), i):
            worker, loop = loops[name]
            time.sleep(options.pause)
            took[name], stretch = _watched(worker, "run", loop, evaluations)
            stretches.append(stretch)
        rounds.append(took)
        rates = ", ".join(f"{name} {evaluations / took[name]:.4g}/s" for name in loops)
        say(f"round {i + 1} of {options.rounds}: {rates}")
    share = others_share(stretches, machine.cores())
    return {"evaluations": evaluations, "rounds": rounds, "others_share": share}


def _window(loops: Mapping[str, tuple[Worker, str]], seconds: float, least: int) -> int:
    """Evaluations in a window: as many as the fastest takes the wanted time for."""

    def per_evaluation(worker: Worker, loop: str) -> float:
        worker.ask("run", loop, 2)  # what a loop compiles at its first use is not timed
        return worker.ask("run", loop, 2) / 2

    fastest = min(per_evaluation(worker, loop) for worker, loop in loops.values())
    return int(np.clip(round(seconds / fastest), least, STEPS))


def turned(names: list[str], i: int) -> Iterator[str]:
    """The names from the i-th on, then those before it."""
    start = i % len(names)
    yield from names[start:] + names[:start]
