"""Bits per dimension of the digits' model, and its rate and distortion:
`python -m benchmarks.likelihood`.

On real digits, which the model was trained on. Their 17 values p in 0..16 become the pixels
round(p 255 / 16) of 256 levels, as in the pictures that it learned. Writes the figures to OUT.json,
a table to OUT.md, and with --pictures FOLDER the curve and the strip.
"""

import time
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

import ddpm_jax as dj
from benchmarks import report
from ddpm_jax.evaluation.digits import real_digits
from ddpm_jax.evaluation.drawing import decoding_strip, draw_rate_distortion
from ddpm_jax.evaluation.levels import from_uint8
from ddpm_jax.evaluation.nll import Likelihoods, bits_of_set

SHOWN = (1, 10, 50, 100, 200, 300, 400, 500, 700, 900, 950, 1000)
"""Steps of the reverse process in the table, counted as in Table 4 of the DDPM paper."""
STRIP = (999, 600, 400, 300, 200, 100, 50, 20, 0)
"""Timesteps in the strip of pictures."""

ABOUT = """\
Model: {}. Of 256 levels; mean and standard error over images. Seconds include compiling."""
PARTS = """\
The bound is {prior:.5f} (L_T) + {rate:.3f} (L_1 to L_T-1, the rate) + {decoder:.3f} (L_0, the
decoder). The flow took {steps:.0f} steps of the solver an image."""


def measured(given: Namespace) -> dict[str, Any]:
    """All figures; `given` says of how many digits."""
    model, params = dj.UNet2DModel.from_pretrained(given.model)
    scheduler = dj.DDPMScheduler.from_pretrained(given.model)
    order = np.random.default_rng(0).permutation(1797)
    pixels = np.rint(real_digits().images[order] * 255).astype(np.uint8).reshape(-1, 8, 8, 1)
    call, key, seconds = (model.denoise, params, scheduler), jax.random.key(given.seed), {}

    def take(name: str, count: int, bits: Any) -> dict[str, Any]:
        began = time.perf_counter()
        parts = [pixels[i : min(i + given.batch, count)] for i in range(0, count, given.batch)]
        found: Likelihoods = bits_of_set(bits, parts, key)
        seconds[name] = time.perf_counter() - began
        return {"num": count, "mean": found.mean, "standard_error": found.standard_error}

    def estimate(x0: Any, keys: Any) -> Any:
        return dj.variational_bound(*call, x0, keys, num_timesteps=given.timesteps).total

    def flow(x0: Any, keys: Any) -> Any:
        steps.append(found := dj.flow_log_likelihood(*call, x0, keys))
        return found.bits_per_dim

    steps: list[dj.FlowLikelihood] = []
    figures = {
        "bound_estimate": take("bound_estimate", given.num, estimate),
        "flow": take("flow", given.few, flow),
    }
    figures["flow"]["solver_steps"] = float(np.mean([f.num_steps for f in steps]))
    began = time.perf_counter()
    x0, keys = from_uint8(pixels[: given.few]), dj.sample_keys(key, given.few)
    bound = dj.variational_bound(*call, x0, keys)
    curve = dj.rate_distortion(bound)
    seconds["bound"] = time.perf_counter() - began
    if given.pictures is not None:
        shown = dj.progressive_decoding(*call, x0[:8], keys[:8], STRIP)
        decoding_strip(shown, x0[:8]).save(given.pictures / "likelihood-strip.png")
        draw_rate_distortion({"digits": curve}, given.pictures / "likelihood-curve.png")
    return {
        "model": given.label or given.model,
        "timesteps": given.timesteps,
        "figures": figures | {"bound": _bound(bound)},
        "curve": _points(curve),
        "seconds": seconds,
        "machine": report.machine(),
    }


def _bound(bound: dj.VariationalBound) -> dict[str, Any]:
    """The whole bound and its parts, means over images."""
    total, terms = (np.asarray(part, np.float64) for part in (bound.total, bound.terms))
    return {
        "num": len(total),
        "mean": total.mean(),
        "standard_error": total.std(ddof=1) / np.sqrt(len(total)),
        "prior": float(np.mean(bound.prior)),
        "rate": terms[:, 1:].sum(1).mean(),
        "decoder": terms[:, 0].mean(),
    }


def _points(curve: dj.RateDistortion) -> list[dict[str, float]]:
    mean, total = curve.mean(), len(curve.timesteps)
    return [
        {"step": step, "rate": mean.rate[0, step - 1], "rmse": mean.distortion[0, step - 1]}
        for step in SHOWN
        if step <= total
    ]


def markdown(result: Mapping[str, Any]) -> str:
    figures, whole = result["figures"], result["figures"]["bound"]
    names = {
        "bound": "variational bound, all timesteps",
        "bound_estimate": f"variational bound, {result['timesteps']} timesteps an image",
        "flow": "probability flow, one Rademacher probe",
    }
    rows = [
        (
            name,
            str(figures[key]["num"]),
            f"{figures[key]['mean']:.3f} ± {figures[key]['standard_error']:.3f}",
            f"{result['seconds'][key]:.0f}",
        )
        for key, name in names.items()
    ]
    points = [(str(p["step"]), f"{p['rate']:.5f}", f"{p['rmse']:.3f}") for p in result["curve"]]
    return (
        "\n\n".join(
            [
                "# Bits per dimension of the digits' model, on digits that it was trained on",
                ABOUT.format(result["model"]),
                report.table(("", "digits", "bits/dim", "s"), rows),
                PARTS.format(**whole, steps=figures["flow"]["solver_steps"]),
                "Progressive compression, steps counted as in Table 4 of arXiv:2006.11239:",
                report.table(("reverse step", "rate, bits/dim", "RMSE, pixels 0 to 255"), points),
            ]
        )
        + "\n"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command."""
    parser = ArgumentParser(prog="python -m benchmarks.likelihood", description=__doc__)
    add, count = parser.add_argument, report.count
    add("--model", default="digits", help="bundled name, folder or hub id (digits)")
    add("--label", help="what the results call it; default: the model's name")
    add("--num", type=count, default=512, help="digits of the estimated bound (512)")
    add("--few", type=count, default=64, help="digits of the others (64)")
    add("--timesteps", type=count, default=50, help="of each image in the estimate (50)")
    add("--batch", type=count, default=64, help="images at once (64)")
    add("--seed", type=int, default=0, help="of all draws (0)")
    add("--pictures", type=Path, help="a folder for likelihood-curve.png and -strip.png")
    add("--out", type=Path, default=report.RESULTS / "likelihood-digits.json", help="the JSON file")
    given = parser.parse_args(arguments)
    result = measured(given)
    report.finish(given.out, result, markdown(result))


if __name__ == "__main__":
    main()
