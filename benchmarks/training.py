"""How fast we train, beside a torch loop with diffusers' network: `python -m benchmarks.training`.

Networks and settings are those of the presets of `ddpm-jax train`; nothing is downloaded. Ours is
the loop of that command, fed with one batch in memory. A second table feeds the same loop from its
input pipeline, and says how long it waits. README.md beside this file says how to read the results.
"""

import itertools
import statistics
import tempfile
import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

import ddpm_jax as dj
from benchmarks import contenders, report, rounds
from benchmarks.networks import PRESETS, settings_of
from ddpm_jax.training.run.checkpoint import Checkpoints
from ddpm_jax.training.run.finetune import Base
from ddpm_jax.training.run.plan import CHECKPOINTS, make_plan
from ddpm_jax.training.run.ready import input_batches, prepare
from ddpm_jax.training.run.run import Run
from ddpm_jax.training.run.settings import Settings

USUAL = {"cpu": ("digits",), "gpu": ("cifar10",)}
INPUTS = {"cpu": ("digits", "files"), "gpu": ("cifar10",)}
PRECISIONS = {"cpu": ("float32",), "gpu": ("bfloat16",)}

LEAST = 8
"""Updates in a window of the second table: more than the batches that are ready at its start."""

COMPILED, COMPILED_NORM = ("torch.compile", "grad_norm"), 1e-2
"""How far the gradient norm of torch.compile may be off: on a CPU it is by half a percent, where
the loss is that of eager to 1e-7."""

NOTES = """\
Updates/s: updates a second in the training loop, the median over rounds; times the batch, images/s.
Ours / theirs: ratio of rates within a round, median and quartiles; above 1 ddpm_jax is faster.
First call: first minus second update, which is compilation. Difference: the largest, of the first
update's loss and gradient norm with the same noise and timesteps.

Input: the loop fed by its input pipeline, and fed with one batch in memory. Waiting: the share of
the fed loop's time in which it waits for a batch. Over memory: what the fed loop takes longer.
Alone: images/s of the input where nothing trains."""


class Ours:
    """The loop of `ddpm-jax train`, from memory or from its input.

    Args:
        settings: of the run.
        folder: for what it writes.
        weights: a folder with a `UNet2DModel` to begin with; None: random weights.
    """

    def __init__(self, settings: Settings, folder: Path, weights: Path | None):
        out, base = Path(tempfile.mkdtemp(dir=folder)), None
        if weights is not None:
            base = Base("torch", *dj.UNet2DModel.from_pretrained(weights), settings.diffusion)
        plan = make_plan(settings, out, base)
        self.input = input_batches(plan)
        ready = prepare(plan, Checkpoints(out / CHECKPOINTS), self.input)
        self.training = Run(ready, None, progress=False)
        self.batch = next(self.input)
        self.began: dict[str, float] = {}
        self.waiting: list[float] = []

    def first(self) -> dict[str, np.ndarray]:
        """What the first update sees, for the other side."""
        state, loss = self.training.state, self.training.ready.plan.loss
        drawn = loss.draw(self.batch, jax.random.fold_in(state.key, state.step))
        draws = {"noise": np.asarray(drawn.noise), "timestep": np.asarray(drawn.timestep)}
        return {"image": self.batch["image"], **draws}

    def run(self, units: int) -> None:
        """Updates on one batch in memory."""
        self._updates(units, (dict(self.batch) for _ in itertools.count()))  # an update empties it
        sums = self.training.interval
        self.began = self.began or {"loss": sums.loss, "grad_norm": sums.grad_norm}

    def outputs(self) -> dict[str, Any]:
        return self.began

    def fed(self, units: int) -> None:
        """Updates on the input's batches."""
        waited, began = self.training.interval.waited, time.perf_counter()
        self._updates(units, self.input)
        took = time.perf_counter() - began
        self.waiting.append((self.training.interval.waited - waited) / took)

    def _updates(self, units: int, batches: Any) -> None:
        training = self.training
        training.ready = replace(training.ready, batches=batches)
        for _ in range(units):
            training.update()
        training.settle()
        jax.block_until_ready(training.state)


def compared(case: report.Case, folder: Path, given: Namespace) -> list[dict[str, Any]]:
    """The contenders' rows."""
    settings = settings_of(case, folder)
    dropout, diffusion = settings.model.dropout, settings.diffusion
    config = settings.model.config(PRESETS[case.network].shape, None, diffusion)
    weights = contenders.weights("draw", config, folder / f"{case.network}-weights")
    ours = Ours(settings, folder, weights)
    arguments = (case, given.device, weights, asdict(settings), ours.first())

    def allowed(name: str, what: str) -> float:
        usual = contenders.tolerance(case.precision, given.device, dropout)
        return max(usual, COMPILED_NORM) if (name, what) == COMPILED else usual

    theirs = contenders.torch_side("Training", *arguments)
    try:
        return contenders.compare(ours, theirs, allowed, given)
    finally:
        ours.input.close()


def input_row(case: report.Case, folder: Path, given: Namespace) -> dict[str, Any]:
    """The loop fed from its input over the loop fed from memory; and the input alone."""
    ours = Ours(settings_of(case, folder), folder, None)
    runs = {"fed": ours.fed, "memory": ours.run}
    units = rounds.window(runs, given.seconds, LEAST)
    taken = rounds.take(runs, units, given.rounds)
    alone = rounds.seconds(lambda n: [next(ours.input) for _ in range(n)], units)
    ours.input.close()
    return {
        "rate": statistics.median(units / took["fed"] for took in taken),
        "waiting": rounds.spread(ours.waiting[-given.rounds :]),
        "over_memory": [value - 1 for value in rounds.ratio(taken, "fed", "memory")],
        "alone": units * case.batch / alone,
        "units": units,
        "seconds": {name: [took[name] for took in taken] for name in runs},
    }


def usual(networks: Sequence[str]) -> dict[str, tuple[int]]:
    """Each network's batch size."""
    return {name: (PRESETS[name].settings.loop.batch_size,) for name in networks}


def markdown(document: Mapping[str, Any]) -> str:
    parts = [report.head("Training: ddpm_jax and a torch loop", document)]
    parts += ["## Against a torch loop", report.contender_table(document["training"], "updates")]
    columns = ("network", "batch", "precision", "updates/s", "images/s")
    columns += ("waiting", "over memory", "alone, images/s")
    parts += ["## Input", report.table(columns, map(_input_cells, document["input"])), NOTES]
    return "\n\n".join(parts) + "\n"


def _input_cells(row: Mapping[str, Any]) -> list[str]:
    return [
        *report.case_cells(row),
        f"{row['rate']:.4g}",
        f"{row['rate'] * row['batch']:.4g}",
        rounds.Spread(*row["waiting"]).percent(),
        rounds.Spread(*row["over_memory"]).percent(),
        f"{row['alone']:.4g}",
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = report.options("benchmarks.training", __doc__, PRESETS)
    given = report.parsed(parser, arguments, "training")
    if jax.device_count() > 1:
        parser.error("torch trains on one device: set CUDA_VISIBLE_DEVICES to one")
    document = report.begun(given) | {"training": [], "input": []}
    device, precisions = given.device, PRECISIONS[given.device]
    with tempfile.TemporaryDirectory() as folder:
        for case in report.cases(given, usual(USUAL[device]), precisions):
            report.say(f"training: {case}")
            rows = compared(case, Path(folder), given)
            document["training"] += [case._asdict() | row for row in rows]
            report.write(given.out, document, markdown(document))
        for case in report.cases(given, usual(INPUTS[device]), precisions):
            report.say(f"input: {case}")
            document["input"] += [case._asdict() | input_row(case, Path(folder), given)]
            report.write(given.out, document, markdown(document))
    print(markdown(document), end="")


if __name__ == "__main__":
    main()
