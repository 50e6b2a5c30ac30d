r"""Bits per dimension by the variational bound, over the whole reverse process.

    (1)  -log p(x_0)  <=  L_T + L_{T-1} + ... + L_1 + L_0

with the terms of `ddpm_jax.likelihood`, in expectation over the noise of x_t. Timesteps count from
0: `terms[:, t]` belongs to timestep t, so terms[:, 0] is the decoder's L_0. In (1) a term is
estimated with one draw, x_t = alpha_t x_0 + sigma_t eps, as in both papers' code.

With K < T timesteps 0..T-1 is cut into K strata, one timestep is drawn uniformly from each, and its
term is weighted with the stratum's length:

    (2)  L_0 + ... + L_{T-1}  =  E sum_k |S_k| L_{t_k},   t_k uniform in S_k

This is unbiased for every K, and K = T is (1). S_0 is timestep 0 alone, and the others are even in
log(sigma / alpha), for there the terms vary least: each is about a step of it times the error of
the predicted eps.

References: Ho et al. 2020, arXiv:2006.11239, eqs. 5 and 13; Nichol and Dhariwal 2021,
arXiv:2102.09672, section 3.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Key

from ddpm_jax._typing import AnyArray, is_whole
from ddpm_jax.evaluation.levels import check_levels
from ddpm_jax.likelihood import Posterior, bound_terms, posterior, predicted_x0, prior_term
from ddpm_jax.sampling.keys import Images, Keys, check_batch, keys_for
from ddpm_jax.sampling.loops import Denoise, check_denoise
from ddpm_jax.schedulers import DDPMScheduler
from ddpm_jax.schedulers.betas import BetaScheduler
from ddpm_jax.schedulers.sigmas import LAST_ALPHA_BAR


class VariationalBound(NamedTuple):
    """The terms of (1) for each image, and their sum; all in bits per dimension but `mse`.

    Attributes:
        total: (B,) the bound, or its unbiased estimate (2).
        prior: (B,) L_T.
        timesteps: (B, K) those of the terms, ascending.
        terms: (B, K) L_t.
        weights: (B, K) of the terms in the total: the lengths of the strata, 1 with all timesteps.
        mse: (B, K) mean squared error of the predicted x0, clipped if the bound's is.
    """

    total: Float[AnyArray, "b"]
    prior: Float[AnyArray, "b"]
    timesteps: Int[AnyArray, "b k"]
    terms: Float[AnyArray, "b k"]
    weights: Float[AnyArray, "b k"]
    mse: Float[AnyArray, "b k"]


def variational_bound(
    denoise: Denoise,
    params: Any,
    scheduler: DDPMScheduler,
    x0: Images,
    keys: Keys,
    *,
    num_timesteps: int | None = None,
    clip_denoised: bool = True,
) -> VariationalBound:
    """The variational bound on bits per dimension, with the discretised decoder.

    One program for a network, a scheduler, a shape and a number of timesteps. What image b draws
    comes from keys[b] alone: x_t has the noise dj.noise(keys, t, shape).

    Args:
        denoise: denoise(params, x, timestep) -> output, static. With all timesteps it is given a ()
            float32 timestep as in `ddpm_jax.sample`; with fewer (B,) of them, one for each image,
            as in training.
        params: any pytree.
        scheduler: the forward process, the prediction type and the variance type.
        x0: (B, H, W, C) floats, p / 127.5 - 1 for pixels p in 0..255.
        keys: (B,) one key per image.
        num_timesteps: K of (2), in 1..T; None for all.
        clip_denoised: clip the predicted x0 to [-1, 1]. The default is that of the papers' code,
            whatever the scheduler's clip_sample is.

    Raises:
        TypeError: `denoise` is a model.
        ValueError: another scheduler than DDPM's, fewer than two training timesteps, num_timesteps
            out of range, images that are not of 256 levels, another number of keys, or an output of
            another shape.

    Source: arXiv:2006.11239, eq. 5 and 13; arXiv:2102.09672, eq. 4 to 7.

    >>> import jax, jax.numpy as jnp, ddpm_jax as dj
    >>> def denoise(params, x, timestep):  # exact for data that are all 0
    ...     return x / params[timestep.astype(int)]
    >>> scheduler = dj.DDPMScheduler()
    >>> sigma = jnp.asarray(scheduler.noise_schedule.sigma, jnp.float32)
    >>> x0 = jnp.full((2, 8, 8, 1), 127 / 127.5 - 1)  # close to 0
    >>> bound = dj.variational_bound(
    ...     denoise, sigma, scheduler, x0, dj.sample_keys(jax.random.key(0), 2)
    ... )
    >>> bound.terms.shape, bool((bound.total < 3).all())
    ((2, 1000), True)
    """
    check_denoise(denoise, params)
    check_ddpm(scheduler)
    total, steps = scheduler.num_train_timesteps, num_timesteps
    if steps is not None and not (is_whole(steps) and 1 <= steps <= total):
        raise ValueError(f"num_timesteps must be a whole number in 1..{total}, got {steps!r}")
    check_batch(x0)
    check_levels(x0)
    given = jnp.asarray(x0, jnp.float32), keys_for(x0, keys)
    return _bound(denoise, params, scheduler, *given, steps, bool(clip_denoised))


def check_ddpm(scheduler: Any) -> None:
    """Raises ValueError for another scheduler: the bound is of DDPM's reverse process."""
    if not isinstance(scheduler, DDPMScheduler):
        name = type(scheduler).__name__
        same = "; DDPMScheduler.from_config(scheduler.config) is the one of the same network"
        raise ValueError(
            f"the variational bound is of a DDPMScheduler, got {name}"
            f"{same if isinstance(scheduler, BetaScheduler) else ''}"
        )


@partial(jax.jit, static_argnums=(0, 2, 5, 6))
def _bound(
    denoise: Denoise,
    params: Any,
    scheduler: DDPMScheduler,
    x0: Array,
    keys: Array,
    num_timesteps: int | None,
    clip: bool,
) -> VariationalBound:
    of, schedule = posterior(scheduler), scheduler.noise_schedule
    edges = strata(schedule.alpha_bar, num_timesteps)
    timesteps = _timesteps(keys, edges)
    levels = (schedule.alpha, schedule.sigma)

    def body(_: None, t: Array) -> tuple[None, tuple[Array, Array]]:
        x = noised_at(x0, keys, t, levels)
        told = t[0] if num_timesteps is None else t
        output = denoise(params, x, told.astype(jnp.float32))
        return None, _term(of, t, x0, x, split(output, x, scheduler), clip)

    _, columns = lax.scan(body, None, timesteps.T)
    terms, mse = (column.T for column in columns)
    weights = jnp.broadcast_to(jnp.asarray(np.diff(edges), jnp.float32), terms.shape)
    prior = prior_term(x0, float(schedule.alpha[-1]), float(schedule.sigma[-1]))
    return VariationalBound(prior + (weights * terms).sum(1), prior, timesteps, terms, weights, mse)


def strata(alpha_bar: Float[np.ndarray, "T"], count: int | None) -> Int[np.ndarray, "edges"]:
    """The edges of the strata of (2): S_k is edges[k], ..., edges[k + 1] - 1."""
    total = len(alpha_bar)
    count = total if count is None else count
    k = np.arange(count + 1)
    if count == 1:
        return k * total
    bar = np.maximum(alpha_bar, LAST_ALPHA_BAR)
    levels = np.log((1 - bar) / bar) / 2
    inner = np.searchsorted(levels, np.linspace(levels[0], levels[-1], count)[1:-1])
    edges = np.array([0, 1, *inner, total])
    # No stratum is empty: every edge is above the one before, and leaves room for the rest.
    return np.minimum(np.maximum.accumulate(edges - k) + k, total - count + k)


def _timesteps(keys: Key[Array, "b"], edges: Int[np.ndarray, "edges"]) -> Int[Array, "b k"]:
    """One timestep of each stratum for each image, from fold_in(key, 0), which no noise uses."""

    def draw(key: Key[Array, ""]) -> Array:
        return jax.random.randint(jax.random.fold_in(key, 0), (len(edges) - 1,), *bounds)

    bounds = jnp.asarray(edges[:-1], jnp.int32), jnp.asarray(edges[1:], jnp.int32)
    return jax.vmap(draw)(keys)


def noised_at(
    x0: Float[Array, "b h w c"],
    keys: Key[Array, "b"],
    timestep: Int[Array, "b"],
    levels: tuple[Float[np.ndarray, "T"], Float[np.ndarray, "T"]],
) -> Float[Array, "b h w c"]:
    """x_t of q, each image at its own timestep, with the noise dj.noise(keys, t, shape)."""

    def draw(key: Key[Array, ""], t: Array) -> Array:
        return jax.random.normal(jax.random.fold_in(key, t + 1), x0.shape[1:], jnp.float32)

    alpha, sigma = (jnp.asarray(one, jnp.float32)[timestep][:, None, None, None] for one in levels)
    return alpha * x0 + sigma * jax.vmap(draw)(keys, timestep)


def split(
    output: Array, x: Float[Array, "b h w c"], scheduler: DDPMScheduler
) -> tuple[Float[Array, "b h w c"], Float[Array, "b h w c"] | None]:
    """The prediction, and the second half where the variance is learned.

    Raises ValueError for an output of another shape.
    """
    channels = x.shape[-1]
    learned = scheduler.variance_type.startswith("learned")
    accepted = (2 * channels,) if learned else (channels, 2 * channels)
    if output.shape[:-1] != x.shape[:-1] or output.shape[-1] not in accepted:
        raise ValueError(
            f"images of shape {x.shape} and variance_type {scheduler.variance_type!r} need an "
            f"output of {' or '.join(map(str, accepted))} channels, got shape {output.shape}"
        )
    output = output.astype(jnp.float32)
    return output[..., :channels], output[..., channels:] if learned else None


def _term(
    of: Posterior, t: Array, x0: Array, x: Array, output: tuple[Array, Array | None], clip: bool
) -> tuple[Float[Array, "b"], Float[Array, "b"]]:
    """L_t and the squared error of the predicted x0, of each image."""
    predicted = predicted_x0(of, t, x, output[0])
    predicted = jnp.clip(predicted, -1, 1) if clip else predicted
    term = bound_terms(of, t, x0, x, *output, predicted if clip else None)
    return term, jnp.square(x0 - predicted).mean((1, 2, 3))
