"""Classifier-free guidance: away from what a network predicts without its condition.

    (1)  output = negative + scale (conditional - negative)
    (2)  output <- (1 - rescale) output + rescale output std(conditional) / std(output)
    (3)  scale is 1 but for noise levels low < sigma / alpha <= high

References: (1) Ho & Salimans 2022, arXiv:2207.12598, equation 6 with scale = 1 + w; (2) Lin et al.
2023, arXiv:2305.08891, equations 15 and 16; (3) Kynkaanniemi et al. 2024, arXiv:2404.07724,
equation 6.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ddpm_jax._typing import is_number
from ddpm_jax.guidance.guide import Images, Output, Params
from ddpm_jax.tables.table import Table


@dataclass(frozen=True)
class Guided:
    """`denoise` of a conditional network; see `guided`."""

    network: Callable[..., Any]

    def __call__(self, params: Params, x: Images, timestep: Float[Array, ""]) -> Output:
        """The guided output. One evaluation of the network on a batch of twice the size."""
        both = jnp.concatenate([params["negative"], params["context"]])
        outputs = self.network(params["network"], jnp.concatenate([x, x]), timestep, both)
        negative, conditional = jnp.split(outputs, 2)
        scale = params["scale"]
        if (interval := params.get("interval")) is not None:
            inside = (interval[0] <= timestep) & (timestep <= interval[1])
            scale = jnp.where(inside, scale, 1)
        guided = negative + scale * (conditional - negative)
        # Learned variances, in the second half of the channels, are those of the condition.
        channels = x.shape[-1]
        guided, variances = guided[..., :channels], conditional[..., channels:]
        if (rescale := params.get("rescale")) is not None:
            ratio = _std(conditional[..., :channels]) / _std(guided)
            guided = (1 - rescale) * guided + rescale * ratio * guided
        return jnp.concatenate([guided, variances], axis=-1)


def _std(images: Images) -> Float[Array, "b 1 1 1"]:
    return images.std(axis=(1, 2, 3), keepdims=True, ddof=1)


def guided(network: Callable[..., Any]) -> Guided:
    """`denoise` for `ddpm_jax.sample`, from a conditional network.

    Its params are {"network": the network's params, "context": (B, ...) conditions, "negative":
    (B, ...) conditions to move away from, "scale": the guidance scale, a number}, and "rescale" in
    [0, 1] where equation (2) is wanted, and "interval" of `guidance_interval` where (3) is. The
    scale is data: another value compiles nothing. At 1 the output is the conditional one.

    Args:
        network: network(params, x, timestep, context) -> (B, H, W, C), or (B, H, W, 2 C) with a
            learned variance. Two results of `guided` for one network are equal and share a
            compiled program.

    >>> import jax.numpy as jnp
    >>> denoise = guided(lambda params, x, timestep, context: context * jnp.ones_like(x))
    >>> one, two = (jnp.full((1, 1, 1, 1), value) for value in (1.0, 2.0))
    >>> params = {"network": None, "context": two, "negative": one, "scale": 3.0}
    >>> float(denoise(params, one, 0.0).squeeze())
    4.0
    """
    return Guided(network)


def guidance_interval(table: Table, low: float, high: float) -> Float[np.ndarray, "2"]:
    """The limits of equation (3) as the first and the last timestep that is guided, for `guided`.

    Args:
        table: the run.
        low: guidance ends at this noise level sigma / alpha, at least 0.
        high: guidance begins at this noise level, above `low`; may be infinite.

    Returns:
        (2,) float32. No timestep lies between them if no row of the table is guided.

    Raises:
        ValueError: `low` and `high` are not numbers in this order.

    >>> import ddpm_jax as dj
    >>> dj.guidance_interval(dj.DDIMScheduler().table(10), 0.3, 5.0).tolist()
    [100.0, 500.0]
    """
    if not (is_number(low) and is_number(high) and 0 <= low < high):
        raise ValueError(
            "a guidance interval is (low, high), noise levels sigma / alpha with 0 <= low < high; "
            f"got ({low!r}, {high!r})"
        )
    alpha, sigma = np.asarray(table.level, np.float64).T
    with np.errstate(divide="ignore"):  # no signal at all: infinite
        ratio = sigma / alpha
    guided = np.asarray(table.timestep)[(low < ratio) & (ratio <= high)]
    if not guided.size:
        return np.array([np.inf, -np.inf], np.float32)
    return np.array([guided.min(), guided.max()], np.float32)
