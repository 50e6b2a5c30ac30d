"""Pictures of an evaluation: the curve of rate and distortion, and strips of decoded images."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image

from ddpm_jax._typing import AnyArray
from ddpm_jax.evaluation.distortion import RateDistortion
from ddpm_jax.extras import check_installed
from ddpm_jax.hub.files import replacing
from ddpm_jax.images import make_grid, to_unit


def draw_rate_distortion(curves: Mapping[str, RateDistortion], path: Path) -> None:
    """Draws curves as in Figure 5 of Ho et al. 2020, arXiv:2006.11239, means over images, as PNG.

    Both rate and distortion by the step of the reverse process, and distortion by rate.

    Args:
        curves: by their name in the legend.
        path: the file; it appears when it is complete.

    Raises:
        ImportError: matplotlib is not installed.
    """
    check_installed(("matplotlib",), "a curve of rate and distortion", "evaluation")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.2), layout="constrained")
    by_step, rate_by_step, by_rate = figure.subplots(1, 3)
    step, error, bits = "reverse process step", "RMSE, pixels 0 to 255", "rate, bits/dim"
    for name, curve in curves.items():
        mean = curve.mean()
        rate, distortion = mean.rate[0], mean.distortion[0]
        steps = mean.timesteps[0] + 1 - mean.timesteps
        by_step.plot(steps, distortion, label=name)
        rate_by_step.plot(steps, rate, label=name)
        by_rate.plot(rate, distortion, label=name)
    for axes, x, y in (
        (by_step, step, error),
        (rate_by_step, step, bits),
        (by_rate, bits, error),
    ):
        axes.set(xlabel=x, ylabel=y, ylim=(0, None))
        axes.grid(visible=True, alpha=0.3)
    by_rate.set(xlim=(0, None))
    by_rate.legend()
    with replacing(Path(path)) as partial:
        figure.savefig(partial, dpi=120, format="png")


def decoding_strip(
    decoded: Float[AnyArray, "k b h w c"], x0: Float[AnyArray, "b h w c"]
) -> Image.Image:
    """A row for each image: what was decoded, in the order given, and the image itself at the end.

    Args:
        decoded: (K, B, H, W, C) from `ddpm_jax.progressive_decoding`.
        x0: (B, H, W, C) the images in [-1, 1].
    """
    columns = np.concatenate([np.asarray(decoded), np.asarray(x0)[None]])
    tiles = columns.swapaxes(0, 1).reshape(-1, *columns.shape[2:])
    return make_grid(to_unit(tiles), columns=len(columns))
