"""How far images in half precision are from float32: `python -m benchmarks.precision`.

Draws digits with the bundled model by DDIM, from the same noise in every precision of the network.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

import ddpm_jax as dj
from benchmarks import report
from ddpm_jax.evaluation.digits import Judge, distance, real_digits

BATCH = 100
PRECISIONS = ("float32", "bfloat16", "float16")
STEP = 1 / 255
"""Of an 8-bit pixel."""

NOTES = """\
Error: the root mean square of the difference of pixels in [0, 1] from the images in float32, from
the same noise; the median and the largest over images. A step: the share of pixels that are more
than one step of 8 bits away. Distance: the Frechet distance to the real digits, in the features of
the judge's classifier."""


def drawn(precision: str, given: Namespace) -> np.ndarray:
    """(N, 8, 8, 1) in [0, 1]. Weights and network in one precision, the sample in float32."""
    dtype = jnp.dtype(precision)
    model, params = dj.UNet2DModel.from_pretrained("digits", dtype=dtype, param_dtype=dtype)
    table = dj.DDIMScheduler.from_pretrained("digits").table(given.steps)
    keys = dj.sample_keys(jax.random.key(0), given.num)
    parts = []
    for begin in tqdm(range(0, given.num, BATCH), desc=precision, unit="batch"):
        x_T = dj.prior(table, keys[begin : begin + BATCH], shape=(8, 8, 1))
        parts.append(np.asarray(dj.sample(model.denoise, params, table, x_T)))
    return np.clip(np.concatenate(parts) / 2 + 0.5, 0, 1)


def measured(given: Namespace) -> dict[str, Any]:
    """The figures of each precision."""
    judge = Judge(real_digits())
    real = judge.features(judge.digits.images)
    exact, rows = np.empty(0), []
    for precision in PRECISIONS:
        images = drawn(precision, given)
        exact = images if precision == "float32" else exact
        apart = images - exact
        errors = np.sqrt(np.square(apart).mean((1, 2, 3)))
        features = judge.features(images.reshape(len(images), -1).astype(np.float64))
        rows.append(
            {
                "precision": precision,
                "error": float(np.median(errors)),
                "largest": float(errors.max()),
                "step": float((np.abs(apart) > STEP).mean()),
                "distance": distance(features, real),
            }
        )
    source = {"model": "digits", "scheduler": "ddim", "steps": given.steps, "num": given.num}
    return {"source": source, "precision": rows, "machine": report.machine()}


def markdown(result: Mapping[str, Any]) -> str:
    columns = ("precision", "error, median", "error, largest", "pixels a step away", "distance")
    rows = [
        [
            row["precision"],
            f"{row['error']:.1e}",
            f"{row['largest']:.1e}",
            f"{100 * row['step']:.1f} %",
            f"{row['distance']:.3f}",
        ]
        for row in result["precision"]
    ]
    source, machine = result["source"], result["machine"]
    title = (
        f"# Images in half precision\n\n{source['num']:,} digits of the bundled model, DDIM in "
        f"{source['steps']} steps; {machine['cpu']}, jax {machine['versions']['jax']}"
    )
    return "\n\n".join([title, report.table(columns, rows), NOTES]) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command."""
    parser = ArgumentParser(prog="python -m benchmarks.precision", description=__doc__)
    parser.add_argument("--num", type=report.count, default=1000, help="images (1000)")
    parser.add_argument("--steps", type=report.count, default=50, help="of DDIM (50)")
    parser.add_argument("--out", type=Path, default=report.RESULTS / "precision.json")
    given = parser.parse_args(arguments)
    result = measured(given)
    report.finish(given.out, result, markdown(result))


if __name__ == "__main__":
    main()
