"""How fast we sample, beside diffusers on torch: `python -m benchmarks.sampling`.

Networks have the configs of the checkpoints and random weights; nothing is downloaded. All run the
DDIM loop over 1000 steps, of which a window takes as many as fill its seconds: ours is the compiled
`ddpm_jax.advance`, theirs is the loop of diffusers' pipeline. A second table takes our own loop
apart. README.md beside this file says how to read the results.
"""

import tempfile
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import ddpm_jax as dj
from benchmarks import contenders, report, rounds
from benchmarks.networks import NETWORKS
from ddpm_jax.pipelines.generate import Network, Unguided

SCHEDULER = {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02, "clip_sample": True}
"""DDIM's, as the checkpoints have it."""
STEPS = 1000

BATCHES = {"cpu": {"cifar10": (1, 4, 16)}, "gpu": {"cifar10": (1, 64, 256), "cat256": (4, 16)}}
PRECISIONS = {"cpu": ("float32",), "gpu": ("bfloat16", "float32")}

COSTS = {
    "loop over network": ("loop", "network"),
    "pipeline over loop": ("pipeline", "loop"),
    "bar over pipeline": ("pipeline and bar", "pipeline"),
}
"""A cost is the time of the first over that of the second, less 1."""

NOTES = """\
Evaluations/s: network evaluations a second in the sampling loop, the median over rounds. Ours /
theirs: ratio of rates within a round, median and quartiles; above 1 ddpm_jax is faster. First call:
first minus second run of the loop, which is compilation. Difference: the largest, from our output
of the network and of three steps, relative to the largest value. Costs: the jitted network called
from Python, the compiled loop, the pipeline without and with its progress bar."""


class Ours:
    """The compiled loop, and what it is made of. Weights are stored in the case's precision.

    Args:
        case: what to sample.
        weights: a folder with a `UNet2DModel`; None: random ones.
    """

    def __init__(self, case: report.Case, weights: Path | None):
        dtype, self.case = jnp.dtype(case.precision), case
        if weights is None:
            model = dj.UNet2DModel(**NETWORKS[case.network], dtype=dtype)
            drawn = model.init_params(jax.random.key(0))
            params = jax.tree.map(lambda leaf: leaf.astype(dtype), drawn)
        else:
            model, params = dj.UNet2DModel.from_pretrained(weights, dtype=dtype, param_dtype=dtype)
        scheduler = dj.DDIMScheduler(**SCHEDULER)
        self.denoise, self.params = Unguided(Network(model)), {"network": {"model": params}}
        self.network = jax.jit(self.denoise)
        table = scheduler.table(STEPS)
        self.timestep, self.table = table.row(0).timestep, jax.device_put(dj.pad(table))
        self.x_T = jnp.asarray(noise(case))
        self.pipe = dj.DDIMPipeline(unet=model, params=params, scheduler=scheduler)

    def run(self, units: int) -> None:
        jax.block_until_ready(self._loop(units))

    def outputs(self) -> dict[str, Any]:
        output = self.network(self.params, self.x_T, self.timestep)
        arrays = {"network": output, "three steps": self._loop(3)}
        return {name: np.asarray(array, np.float32) for name, array in arrays.items()}

    def loops(self) -> dict[str, Callable[[int], Any]]:
        """The runs that `COSTS` compares."""
        return {
            "network": self._network,
            "loop": self.run,
            "pipeline": partial(self._pipeline, progress=False),
            "pipeline and bar": partial(self._pipeline, progress=True),
        }

    def _loop(self, units: int) -> jax.Array:
        start = self.table.init(self.x_T)
        return dj.advance(self.denoise, self.params, self.table, start, None, 0, units)[0]

    def _network(self, units: int) -> None:
        """Each output is the next input: evaluations wait for one another, as in a loop."""
        x = self.x_T
        for _ in range(units):
            x = self.network(self.params, x, self.timestep)
        jax.block_until_ready(x)

    def _pipeline(self, units: int, progress: bool) -> None:
        images: Any = self.pipe(
            jax.random.key(0),
            batch_size=self.case.batch,
            num_inference_steps=units,
            output_type="jax",
            progress=progress,
        )
        jax.block_until_ready(images.images)


def noise(case: report.Case) -> np.ndarray:
    size = NETWORKS[case.network]["sample_size"]
    shape = (case.batch, size, size, 3)
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def compared(ours: Ours, weights: Path | None, given: Namespace) -> list[dict[str, Any]]:
    """The contenders' rows."""
    case, device = ours.case, given.device
    allowed = contenders.tolerance(case.precision, device)
    theirs = contenders.torch_side("Sampling", case, device, weights, SCHEDULER, noise(case))
    return contenders.compare(ours, theirs, lambda _name, _what: allowed, given)


def own_costs(ours: Ours, given: Namespace) -> list[dict[str, Any]]:
    loops = ours.loops()
    units = rounds.window(loops, given.seconds)
    taken = rounds.take(loops, units, given.rounds)
    return [
        {
            "cost": name,
            "share": [value - 1 for value in rounds.ratio(taken, over, under)],
            "units": units,
            "seconds": {loop: [took[loop] for took in taken] for loop in (over, under)},
        }
        for name, (over, under) in COSTS.items()
    ]


def markdown(document: Mapping[str, Any]) -> str:
    parts = [report.head("Sampling: ddpm_jax and diffusers", document)]
    parts += ["## Against diffusers", report.contender_table(document["sampling"], "evaluations")]
    cells = (
        [*report.case_cells(row), row["cost"], rounds.Spread(*row["share"]).percent()]
        for row in document["costs"]
    )
    columns = ("network", "batch", "precision", "cost", "measured")
    parts += ["## What our own loop costs", report.table(columns, cells), NOTES]
    return "\n\n".join(parts) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = report.options("benchmarks.sampling", __doc__, NETWORKS)
    given = report.parsed(parser, arguments, "sampling")
    document = report.begun(given) | {"sampling": [], "costs": []}
    taken = set()  # costs are taken at the first batch: the smallest, where they weigh most
    with tempfile.TemporaryDirectory() as folder:
        for case in report.cases(given, BATCHES[given.device], PRECISIONS[given.device]):
            report.say(f"{case}")
            weights = contenders.weights(
                "draw", NETWORKS[case.network], Path(folder) / case.network
            )
            ours, named = Ours(case, weights), case._asdict()
            document["sampling"] += [named | row for row in compared(ours, weights, given)]
            if (case.network, case.precision) not in taken:
                taken.add((case.network, case.precision))
                document["costs"] += [named | row for row in own_costs(ours, given)]
            report.write(given.out, document, markdown(document))
    print(markdown(document), end="")


if __name__ == "__main__":
    main()
