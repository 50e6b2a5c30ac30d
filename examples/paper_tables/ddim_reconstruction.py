"""Reconstruction error by steps of Table 2 of the DDIM paper (Song et al. 2021, arXiv:2010.02502):
`python -m examples.paper_tables.ddim_reconstruction`.

Encodes the 10,000 images of CIFAR-10's test set to x_T in S steps of DDIM with eta 0, and decodes
them in S steps. The error is the mean squared one of a pixel's channel in [0, 1]. The paper does
not say which steps; here they are quadratic as in its Table 1, and all timesteps where S is 1000.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

import ddpm_jax as dj
from benchmarks import report
from ddpm_jax.evaluation.levels import from_uint8
from examples.paper_tables.common import Line, Results, Run, checked, finish, options
from examples.parts import in_parts

PAPER = {
    10: "0.014",
    20: "0.0065",
    50: "0.0023",
    100: "0.0009",
    200: "0.0004",
    500: "0.0001",
    1000: "0.0001",
}
QUICK_STEPS = (10, 20)


def error(run: Run, model: dj.UNet2DModel, params: Any, steps: int) -> dict[str, Any]:
    """The mean error for a number of steps."""
    config = dj.DDIMScheduler.from_pretrained(run.model).config
    scheduler = dj.DDIMScheduler.from_config(
        config,
        clip_sample=False,  # a run that clips has no inverse, and the authors' does not
        timestep_spacing="leading" if steps == 1000 else "quadratic",
    )
    down = dj.pad(scheduler.table(steps))  # padded: all numbers of steps share one program
    up = dj.pad(dj.inverted(scheduler.table(steps, dtype=np.float64)))

    def walked(table: dj.Table, x: Array) -> Array:
        end = dj.advance(model.denoise, params, table, table.init(x), None, 0, steps)
        return jnp.asarray(end[0])

    def compute(_: int, pixels: np.ndarray) -> dict[str, np.ndarray]:
        x0 = jnp.asarray(from_uint8(pixels))
        back = walked(down, walked(up, x0))
        return {"mse": np.asarray(jnp.square((back - x0) / 2).mean((1, 2, 3)), np.float64)}

    batches = run.images(run.num).batches(run.batch or (32 if run.quick else 100))
    kept = in_parts(run.out / f"steps-{steps}", batches, run.num, compute)
    parts = [part["mse"] for part in kept]
    return {"mse": float(np.concatenate(parts).mean())}


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command."""
    parser = options("ddim_reconstruction", __doc__, 10_000)
    parser.add_argument(
        "--steps", type=report.count, nargs="+", choices=tuple(PAPER), help="rows; default: all"
    )
    given = parser.parse_args(arguments)
    if given.weights is not None:
        parser.error("--weights is of the scripts that compute a FID: leave it out")
    if given.quick and given.steps:
        parser.error(f"--quick takes {QUICK_STEPS} steps: leave out --steps")
    run = checked(parser, given, "test")
    results = Results(parser, run)
    model, params = dj.UNet2DModel.from_pretrained(run.model)
    lines = []
    for steps in QUICK_STEPS if run.quick else given.steps or tuple(PAPER):
        found = results.row(str(steps), lambda s=steps: error(run, model, params, s))
        lines.append(Line(f"{steps} steps", found["mse"], PAPER[steps]))
    finish(run, "DDIM, Table 2: reconstruction error, a pixel in [0, 1]", lines)


if __name__ == "__main__":
    main()
