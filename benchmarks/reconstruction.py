"""How close a run down from an encoded image comes to it: `python -m benchmarks.reconstruction`.

Encodes real digits with the bundled model by DDIM in S steps, and decodes them in S steps: the
squared error of a pixel in [0, 1], as in Table 2 of Song et al. 2021, arXiv:2010.02502 (there on
CIFAR-10, so only the trend is to be compared). Writes the figures to OUT.json, a table to OUT.md.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jax import Array
from jax import numpy as jnp
from tqdm import tqdm

import ddpm_jax as dj
from benchmarks import report
from ddpm_jax.evaluation.digits import real_digits

PAPER = {10: 0.014, 20: 0.0065, 50: 0.0023, 100: 0.0009, 200: 0.0004, 500: 0.0001, 1000: 0.0001}
"""The paper's Table 2, with as many digits as it prints."""


def measured(given: Namespace) -> dict[str, Any]:
    """The error for each number of steps."""
    model, params = dj.UNet2DModel.from_pretrained("digits")
    config = dj.DDIMScheduler.from_pretrained("digits").config
    scheduler = dj.DDIMScheduler.from_config(config, clip_sample=False)
    images = real_digits().images[: given.num].reshape(-1, 8, 8, 1)
    x0 = jnp.asarray(2 * images - 1, jnp.float32)

    def run(table: dj.Table, x: Array) -> Array:
        """Padded, so that all numbers of steps share one program."""
        start = table.init(x)
        end = dj.advance(model.denoise, params, dj.pad(table), start, None, 0, len(table))
        return jnp.asarray(end[0])

    errors: dict[int, float] = {}
    for steps in tqdm(given.steps):
        down = scheduler.table(steps, dtype=np.float64)
        back = run(scheduler.table(steps), run(dj.inverted(down), x0))
        errors[steps] = float((((back - x0) / 2) ** 2).mean())  # in [0, 1]
    return {"num": len(images), "errors": errors, "machine": report.machine()}


def markdown(result: Mapping[str, Any]) -> str:
    rows = [
        (str(steps), f"{error:.2g}", f"{PAPER[steps]:g}" if steps in PAPER else "")
        for steps, error in result["errors"].items()
    ]
    table = report.table(("steps", "digits", "CIFAR-10, the DDIM paper"), rows)
    return (
        f"# Encoded and decoded by DDIM: squared error of a pixel in [0, 1]\n\n"
        f"{result['num']} real digits, the bundled model\n\n{table}\n"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command."""
    parser = ArgumentParser(prog="python -m benchmarks.reconstruction", description=__doc__)
    parser.add_argument("--num", type=report.count, default=64, help="digits (64)")
    parser.add_argument("--steps", type=report.count, nargs="+", default=list(PAPER))
    parser.add_argument("--out", type=Path, default=report.RESULTS / "reconstruction.json")
    given = parser.parse_args(arguments)
    result = measured(given)
    report.finish(given.out, result, markdown(result))


if __name__ == "__main__":
    main()
