r"""A network between its training timesteps: eps at any noise level of its range.

Levels are l = log(sigma / alpha). Whatever the process, z is its x of unit variance,

    (1)  z = a x0 + b eps,   a = 1 / sqrt(1 + e^(2 l)),   b = sqrt(1 - a^2),

and the network is asked in its own terms:

    (2)  schedulers of betas:  x = z, and the timestep is linear in l between training timesteps.
         In other words: between them the logarithm of (1 - alpha_bar) / alpha_bar is linear
    (3)  EDM (Karras et al. 2022, arXiv:2206.00364):  x = z / a, the preconditioned network F at
         log(sigma) / 4
    (4)  scores of the variance-exploding SDE (Song et al. 2021, arXiv:2011.13456):  x = z / a,
         told sigma; the output is -eps / sigma

The Euler family is (2): its x is z / a, and its network is given a x.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ddpm_jax.sampling.loops import Denoise
from ddpm_jax.schedulers import ScoreSdeVeScheduler
from ddpm_jax.schedulers.base import Scheduler
from ddpm_jax.schedulers.betas import BetaScheduler
from ddpm_jax.schedulers.distilled import Distilled
from ddpm_jax.schedulers.edm import EDMScheduler
from ddpm_jax.schedulers.sigmas import LAST_ALPHA_BAR
from ddpm_jax.tables.readings import eps_of

Ask: TypeAlias = Callable[[Any, Float[Array, "..."], Float[Array, ""]], Float[Array, "..."]]
"""(params, z, l) -> eps."""


class Continuous(NamedTuple):
    """A network over its range of noise levels.

    Attributes:
        low: the smallest l that it was trained on.
        high: the largest.
        eps: (params, z, l) -> eps, for images z (B, H, W, C) and one level.
    """

    low: float
    high: float
    eps: Ask


Read: TypeAlias = Callable[[Denoise, Any], Continuous]
"""(denoise, scheduler) -> the reading."""


def continuous(denoise: Denoise, scheduler: Scheduler) -> Continuous:
    """The reading of a scheduler's network. Raises ValueError as `reading_of`."""
    return reading_of(scheduler)(denoise, scheduler)


def reading_of(scheduler: Scheduler) -> Read:
    """How a scheduler's network is read.

    Raises:
        ValueError: it is read in no such way, by name.
    """
    name = type(scheduler).__name__
    if isinstance(scheduler, Distilled):
        raise ValueError(f"networks of {name} are distilled: they have no probability flow")
    if getattr(scheduler, "use_flow_sigmas", False):
        raise ValueError(f"the probability flow is not known for {name} with use_flow_sigmas")
    for kind, read in READINGS.items():
        if isinstance(scheduler, kind):
            return read
    raise ValueError(
        "the probability flow is known for schedulers of betas, EDM's and ScoreSdeVeScheduler, "
        f"got {name}"
    )


def level_scales(level: Float[Array, ""]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """(a, b) of (1)."""
    return jnp.sqrt(jax.nn.sigmoid(-2 * level)), jnp.sqrt(jax.nn.sigmoid(2 * level))


def _of_betas(denoise: Denoise, scheduler: Any) -> Continuous:
    """Equation (2)."""
    alpha_bar = np.maximum(scheduler.noise_schedule.alpha_bar, LAST_ALPHA_BAR)
    levels = np.log((1 - alpha_bar) / alpha_bar) / 2
    knots = jnp.asarray(levels, jnp.float32)
    kind = scheduler.prediction_type

    def eps(params: Any, z: Array, level: Array) -> Array:
        timestep = jnp.interp(level, knots, jnp.arange(len(levels), dtype=jnp.float32))
        output = prediction(denoise(params, z, timestep), z)
        of_z, of_output = eps_of(kind, *level_scales(level), 1.0)
        return of_z * z + of_output * output

    return Continuous(float(levels[0]), float(levels[-1]), eps)


def _of_edm(denoise: Denoise, scheduler: Any) -> Continuous:
    """Equation (3); eps as in (5) of `ddpm_jax.tables.readings`, with sigma traced."""
    data = scheduler.sigma_data
    sign = 1.0 if scheduler.prediction_type == "epsilon" else -1.0

    def eps(params: Any, z: Array, level: Array) -> Array:
        sigma, x = jnp.exp(level), z / level_scales(level)[0]
        h = jnp.sqrt(sigma**2 + data**2)
        output = prediction(denoise(params, x / h, level / 4), z)
        return (sigma / h**2) * x - (sign * data / h) * output

    return Continuous(np.log(scheduler.sigma_min), np.log(scheduler.sigma_max), eps)


def _of_score(denoise: Denoise, scheduler: Any) -> Continuous:
    """Equation (4)."""

    def eps(params: Any, z: Array, level: Array) -> Array:
        sigma, x = jnp.exp(level), z / level_scales(level)[0]
        return -sigma * prediction(denoise(params, x, sigma), z)

    return Continuous(np.log(scheduler.sigma_min), np.log(scheduler.sigma_max), eps)


READINGS: dict[type[Scheduler], Read] = {
    BetaScheduler: _of_betas,
    EDMScheduler: _of_edm,
    ScoreSdeVeScheduler: _of_score,
}


def prediction(output: Array, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """The first half of an output with a learned variance, or all of it, as float32.

    Raises ValueError for another shape.
    """
    channels = x.shape[-1]
    if output.shape[:-1] != x.shape[:-1] or output.shape[-1] not in (channels, 2 * channels):
        raise ValueError(
            f"images of shape {x.shape} need an output of that shape, or of twice the channels; "
            f"got {output.shape}. Each image is evaluated by itself here: pass what is one for "
            "each image as of_each, not in params"
        )
    return output[..., :channels].astype(jnp.float32)
