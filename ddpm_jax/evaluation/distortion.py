r"""Progressive lossy compression: what an image costs, and how well it is known meanwhile.

A sender tells a receiver x_{T-1}, x_{T-2}, ..., x_0 of q, each at the cost of a term of the
variational bound (Algorithms 3 and 4), for the receiver has p. Once it has x_t it estimates x0:

    (1)  rate(t) = L_T + L_{T-1} + ... + L_{t+1},   bits per dimension
    (2)  x0_hat(t) = the network's predicted x0 at x_t
    (3)  distortion(t) = sqrt(|x0 - x0_hat(t)|^2 / D) * 127.5,   on the scale of pixels 0..255

Timesteps count from 0, and terms are named as in `ddpm_jax.evaluation.bound`: L_t is the cost of
x_{t-1} for a receiver that has x_t. So rate(0) is all but the lossless last term L_0, and at t the
papers' T - t + 1 (they count from 1) is `num_timesteps` - t here.

Reference: Ho et al. 2020, arXiv:2006.11239, section 4.3, Figure 5 and Table 4.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from ddpm_jax._typing import AnyArray, is_whole
from ddpm_jax.evaluation.bound import VariationalBound, check_ddpm, noised_at, split
from ddpm_jax.likelihood import posterior, predicted_x0
from ddpm_jax.sampling.keys import Images, Keys, check_batch, keys_for
from ddpm_jax.sampling.loops import Denoise, advance, check_denoise
from ddpm_jax.sampling.segments import with_preview
from ddpm_jax.schedulers import DDPMScheduler
from ddpm_jax.tables.table import Table, pad

PIXELS = 127.5
"""Levels of 0..255 in one unit of x."""


class RateDistortion(NamedTuple):
    """(1) and (3) in the order in which a receiver gets there, float64 on the host.

    Attributes:
        timesteps: (T,) T-1, ..., 0.
        rate: (B, T) bits per dimension that the receiver has when it has x_t.
        distortion: (B, T) root mean squared error of its estimate of x0, on the scale [0, 255].
    """

    timesteps: Int[np.ndarray, "t"]
    rate: Float[np.ndarray, "b t"]
    distortion: Float[np.ndarray, "b t"]

    def mean(self) -> "RateDistortion":
        """Over images: the mean rate, and the root of the mean squared error; (1, T) each."""
        error = np.sqrt(np.square(self.distortion).mean(0, keepdims=True))
        return RateDistortion(self.timesteps, self.rate.mean(0, keepdims=True), error)


def rate_distortion(bound: VariationalBound) -> RateDistortion:
    """The curve of progressive lossy compression, of each image.

    Args:
        bound: from `ddpm_jax.variational_bound`, with all timesteps.

    Raises:
        ValueError: the bound has some timesteps only.

    Source: arXiv:2006.11239, section 4.3 and Figure 5.

    >>> import jax, jax.numpy as jnp, ddpm_jax as dj
    >>> def denoise(params, x, timestep):
    ...     return x
    >>> x0, keys = -jnp.ones((2, 4, 4, 1)), dj.sample_keys(jax.random.key(0), 2)
    >>> bound = dj.variational_bound(denoise, None, dj.DDPMScheduler(), x0, keys)
    >>> curve = dj.rate_distortion(bound)
    >>> curve.rate.shape, curve.timesteps[[0, -1]].tolist()
    ((2, 1000), [999, 0])
    """
    terms, weights, prior = (
        np.asarray(part, np.float64) for part in (bound.terms, bound.weights, bound.prior)
    )
    if np.any(weights != 1):
        raise ValueError(
            "a rate needs the terms of all timesteps: call variational_bound without num_timesteps"
        )
    last_first = terms[:, ::-1]  # L_{T-1}, ..., L_0
    before = np.concatenate([prior[:, None], last_first[:, :-1]], axis=1)
    error = np.sqrt(np.asarray(bound.mse, np.float64)[:, ::-1]) * PIXELS
    return RateDistortion(np.asarray(bound.timesteps)[0, ::-1], before.cumsum(1), error)


def progressive_decoding(
    denoise: Denoise,
    params: Any,
    scheduler: DDPMScheduler,
    x0: Images,
    keys: Keys,
    timesteps: Sequence[int],
    *,
    clip_denoised: bool = True,
) -> Float[Array, "k b h w c"]:
    """What a receiver makes of x_t of q: the predicted x0 at chosen timesteps.

    The noise of x_t is that of `variational_bound`, so these are the pictures of its distortions.
    Other timesteps compile nothing, another number of them does.

    Args:
        denoise: as in `ddpm_jax.sample`.
        params: as in `ddpm_jax.sample`.
        scheduler: the forward process and the prediction type.
        x0: (B, H, W, C) clean images, usually in [-1, 1].
        keys: (B,) one key per image.
        timesteps: whole numbers in 0..T-1, in any order.
        clip_denoised: clip the predicted x0 to [-1, 1].

    Returns:
        (K, B, H, W, C) float32, one picture of each image for each timestep.

    Raises:
        TypeError: `denoise` is a model.
        ValueError: another scheduler than DDPM's, no timestep, one out of range, or another number
            of keys.

    Source: arXiv:2006.11239, Algorithm 4.

    >>> import jax, jax.numpy as jnp, ddpm_jax as dj
    >>> def denoise(params, x, timestep):
    ...     return x
    >>> x0, keys = jnp.zeros((2, 4, 4, 1)), dj.sample_keys(jax.random.key(0), 2)
    >>> seen = dj.progressive_decoding(denoise, None, dj.DDPMScheduler(), x0, keys, [999, 500, 0])
    >>> seen.shape
    (3, 2, 4, 4, 1)
    """
    check_denoise(denoise, params)
    check_ddpm(scheduler)
    check_batch(x0)
    chosen, total = list(timesteps), scheduler.num_train_timesteps
    wrong = [t for t in chosen if not (is_whole(t) and 0 <= t < total)]
    if wrong or not chosen:
        got = ", ".join(map(repr, wrong[:10])) or "none"
        raise ValueError(f"timesteps must be whole numbers in 0..{total - 1}, got {got}")
    given = jnp.asarray(x0, jnp.float32), keys_for(x0, keys), jnp.asarray(chosen, jnp.int32)
    return _decoded(denoise, params, scheduler, *given, bool(clip_denoised))


@partial(jax.jit, static_argnums=(0, 2, 6))
def _decoded(
    denoise: Denoise,
    params: Any,
    scheduler: DDPMScheduler,
    x0: Array,
    keys: Array,
    timesteps: Array,
    clip: bool,
) -> Float[Array, "k b h w c"]:
    of, schedule = posterior(scheduler), scheduler.noise_schedule

    def body(_: None, timestep: Array) -> tuple[None, Array]:
        t = jnp.broadcast_to(timestep, x0.shape[:1])
        x = noised_at(x0, keys, t, (schedule.alpha, schedule.sigma))
        output = denoise(params, x, timestep.astype(jnp.float32))
        predicted = predicted_x0(of, t, x, split(output, x, scheduler)[0])
        return None, jnp.clip(predicted, -1, 1) if clip else predicted

    return lax.scan(body, None, timesteps)[1]


def progressive_generation(
    denoise: Denoise,
    params: Any,
    table: Table,
    x_T: Images,
    keys: Keys | None,
    timesteps: Sequence[float],
) -> Float[AnyArray, "k b h w c"]:
    """The predicted x0 at chosen timesteps of a run, so that images appear from coarse to fine.

    `ddpm_jax.sample_with_history` gives them after every so many rows.

    Args:
        denoise: as in `ddpm_jax.sample`.
        params: as in `ddpm_jax.sample`.
        table: any run.
        x_T: (B, H, W, C) where it starts, from `ddpm_jax.prior`.
        keys: (B,) one key per image; None only for a deterministic table.
        timesteps: strictly descending, each of exactly one row of the table.

    Returns:
        (K, B, H, W, C), the x0 that each row predicts, clipped where the table clips.

    Raises:
        TypeError: `denoise` is a model.
        ValueError: no timestep, timesteps out of order, one that no row or several have, or as in
            `ddpm_jax.sample`.

    Source: arXiv:2006.11239, section 4.3 and Figure 6.

    >>> import jax, jax.numpy as jnp, ddpm_jax as dj
    >>> def denoise(params, x, timestep):
    ...     return x
    >>> table, keys = dj.DDPMScheduler().table(10), dj.sample_keys(jax.random.key(0), 2)
    >>> x_T = dj.prior(table, keys, shape=(4, 4, 1))
    >>> dj.progressive_generation(denoise, None, table, x_T, keys, [900, 500, 0]).shape
    (3, 2, 4, 4, 1)
    """
    check_denoise(denoise, params)
    rows = _rows(table, timesteps)
    seen, padded = [], pad(with_preview(table))
    done, registers = 0, padded.init(jnp.asarray(x_T))
    for row in rows:
        registers = advance(denoise, params, padded, registers, keys, done, row + 1)
        done = row + 1
        seen.append(registers[-1])
    return jnp.stack(seen)


def _rows(table: Table, timesteps: Sequence[float]) -> list[int]:
    """The row of each timestep."""
    chosen = list(timesteps)
    if not chosen or any(np.diff(chosen) >= 0):
        raise ValueError(f"timesteps must be strictly descending, got {chosen[:10]}")
    found = [np.flatnonzero(np.asarray(table.timestep) == np.float32(t)) for t in chosen]
    wrong = [f"{t:g} in {len(at)}" for t, at in zip(chosen, found, strict=True) if len(at) != 1]
    if wrong:
        raise ValueError(
            f"each timestep must be that of one row of {len(table)}; got {', '.join(wrong[:10])}"
        )
    return [int(at[0]) for at in found]
