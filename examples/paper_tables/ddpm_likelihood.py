"""Bits per dimension, rate and distortion of the DDPM paper (Ho et al. 2020, arXiv:2006.11239):
Table 1's NLL in the row "L_simple", section 4.3, Table 4 and Figure 5:
`python -m examples.paper_tables.ddpm_likelihood`.

The bound of all 1000 timesteps with the larger variance (fixed_large), on the 10,000 images of the
test set. The RMSE is the root of the mean squared error over all images.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import ddpm_jax as dj
from ddpm_jax.evaluation.drawing import draw_rate_distortion
from ddpm_jax.evaluation.levels import from_uint8
from examples.paper_tables.common import Line, Results, Run, checked, finish, options
from examples.parts import in_parts

NLL, RATE, DISTORTION, RMSE = "3.75", "1.78", "1.97", "0.95"
TABLE_4 = {
    1000: ("1.77581", "0.95136"),
    900: ("0.11994", "12.02277"),
    800: ("0.05415", "18.47482"),
    700: ("0.02866", "24.43656"),
    600: ("0.01507", "30.80948"),
    500: ("0.00716", "38.03236"),
    400: ("0.00282", "46.12765"),
    300: ("0.00081", "54.18826"),
    200: ("0.00013", "60.97170"),
    100: ("0.00000", "67.60125"),
}
"""Rate and RMSE by the step of the reverse process, T - t + 1 with the paper's t."""
QUICK_PROCESS = {"num_train_timesteps": 20, "beta_end": 0.5}
"""--quick: a short process, which the network was not trained on."""


def reverse_process(run: Run) -> dj.DDPMScheduler:
    """The scheduler whose bound is taken."""
    config = dj.DDPMScheduler.from_pretrained(run.model).config
    short = QUICK_PROCESS if run.quick else {}
    return dj.DDPMScheduler.from_config(config, variance_type="fixed_large", **short)


def mean_bound(run: Run, scheduler: dj.DDPMScheduler) -> dict[str, np.ndarray]:
    """The mean over images of the bound, of its terms and of the squared errors; the bound's
    standard error."""
    model, params = dj.UNet2DModel.from_pretrained(run.model)
    fold = jax.vmap(partial(jax.random.fold_in, jax.random.key(0)))

    def compute(first: int, pixels: np.ndarray) -> dict[str, np.ndarray]:
        keys = fold(jnp.arange(first, first + len(pixels)))
        x0 = from_uint8(pixels)
        bound = dj.variational_bound(model.denoise, params, scheduler, x0, keys)
        found = {name: getattr(bound, name) for name in ("total", "prior", "terms", "mse")}
        means = {name: np.asarray(x, np.float64).mean(0) for name, x in found.items()}
        return means | {"total": np.asarray(bound.total, np.float64)}

    size = run.batch or (32 if run.quick else 100)
    batches = run.images(run.num).batches(size)
    parts = list(in_parts(run.out / "bound", batches, run.num, compute))
    counts = [len(part["total"]) for part in parts]
    totals = np.concatenate([part["total"] for part in parts])
    names = ("prior", "terms", "mse")
    means = {n: np.average([part[n] for part in parts], axis=0, weights=counts) for n in names}
    error = totals.std(ddof=1) / np.sqrt(len(totals)) if len(totals) > 1 else np.nan
    return means | {"total": totals.mean(), "error": error}


def curve_of(means: dict[str, np.ndarray]) -> dj.RateDistortion:
    """Rate and distortion of the mean image."""
    terms = means["terms"][None]
    steps, ones = np.arange(terms.shape[1])[None], np.ones_like(terms)
    one = {name: np.asarray(means[name])[None] for name in ("total", "prior", "mse")}
    bound = dj.VariationalBound(timesteps=steps, terms=terms, weights=ones, **one)
    return dj.rate_distortion(bound)


def numbers(run: Run) -> dict[str, Any]:
    """All that the table has; draws Figure 5."""
    means = mean_bound(run, reverse_process(run))
    curve = curve_of(means)
    draw_rate_distortion({run.model: curve}, run.out / "figure5.png")
    return {
        "nll": float(means["total"]),
        "nll_error": float(means["error"]),
        "decoder": float(means["terms"][0]),
        "rate": curve.rate[0].tolist(),
        "rmse": curve.distortion[0].tolist(),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command."""
    parser = options("ddpm_likelihood", __doc__, 10_000)
    given = parser.parse_args(arguments)
    if given.weights is not None:
        parser.error("--weights is of the scripts that compute a FID: leave it out")
    run = checked(parser, given, "test")
    found = Results(parser, run).row("bound", lambda: numbers(run))
    rate, rmse = found["rate"], found["rmse"]
    lines = [
        Line("NLL by the bound, bits/dim", found["nll"], NLL),
        Line("rate, bits/dim", rate[-1], RATE),
        Line("distortion: the decoder's bits/dim", found["decoder"], DISTORTION),
        Line("RMSE of 255", rmse[-1], RMSE),
    ]
    for step, (paper_rate, paper_rmse) in TABLE_4.items():
        if (own := step * len(rate) // 1000) >= 1:  # --quick has fewer steps
            lines.append(Line(f"rate at reverse step {own}", rate[own - 1], paper_rate))
            lines.append(Line(f"RMSE at reverse step {own}", rmse[own - 1], paper_rmse))
    finish(
        run,
        "DDPM, Table 1 (NLL), section 4.3 and Table 4",
        lines,
        f"The standard error of the NLL over images is {found['nll_error']:.3f}"
        f"{'' if run.quick else ', and the paper says at most'}. "
        "[figure5.png](figure5.png) is Figure 5.",
    )


if __name__ == "__main__":
    main()
