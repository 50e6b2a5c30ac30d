"""Networks that are exact for pixels of independent normal numbers, and their expected figures."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

import ddpm_jax as dj

LEVELS = (np.arange(256) / 127.5 - 1).astype(np.float32)


def keys_of(count: int, seed: int = 0) -> Array:
    return dj.sample_keys(jax.random.key(seed), count)


def pixels(seed: int, shape: tuple[int, ...], std: float) -> np.ndarray:
    """Normal numbers on the 256 levels."""
    drawn = np.random.default_rng(seed).normal(0, std, shape).clip(-1, 1)
    return LEVELS[np.rint(drawn * 127.5 + 127.5).astype(int)]


def ratio_of(params: Any, timestep: Array) -> Array:
    """sigma / alpha at a timestep, whole or fractional: its logarithm is interpolated."""
    count = len(params["log_ratio"])
    return jnp.exp(jnp.interp(timestep, jnp.arange(float(count)), params["log_ratio"]))


def answer(kind: str, params: Any, x: Array, timestep: Array) -> Array:
    """E[x0 | x], E[eps | x] or E[v | x] of data N(0, std^2), at alpha^2 + sigma^2 = 1."""
    ratio, var = ratio_of(params, timestep), params["std"] ** 2
    ratio = ratio.reshape(-1, *(1,) * 3) if ratio.ndim else ratio
    alpha = 1 / jnp.sqrt(1 + ratio**2)
    sigma = ratio * alpha
    total = alpha**2 * var + sigma**2
    x0, eps = alpha * var / total * x, sigma / total * x
    return {"sample": x0, "epsilon": eps, "v_prediction": alpha * eps - sigma * x0}[kind]


NETWORKS = {kind: partial(answer, kind) for kind in ("epsilon", "sample", "v_prediction")}
epsilon = NETWORKS["epsilon"]


def epsilon_and_variance(params: Any, x: Array, timestep: Array) -> Array:
    """The true log variance of x_{t-1} given x_t in the second half."""
    at = params["log_var"][timestep.astype(int)]
    at = at.reshape(-1, 1, 1, 1) if at.ndim else at
    return jnp.concatenate([epsilon(params, x, timestep), jnp.broadcast_to(at, x.shape)], -1)


def params_of(scheduler: Any, std: float) -> dict[str, Any]:
    """What the networks above need of a scheduler of betas."""
    bar = scheduler.noise_schedule.alpha_bar
    before = np.append(1.0, bar[:-1])
    beta = 1 - bar / before
    spread = [b * std**2 + 1 - b for b in (before, bar)]
    numbers = {
        "log_ratio": np.log((1 - bar) / bar) / 2,
        "log_var": np.log(beta * spread[0] / spread[1]),
        "std": std,
    }
    return {name: jnp.asarray(number, jnp.float32) for name, number in numbers.items()}


def chain(steps: int = 50, **fields: Any) -> dj.DDPMScheduler:
    """A short process that ends close to noise."""
    betas = np.linspace(1e-3, 0.25, steps).tolist()
    return dj.DDPMScheduler(num_train_timesteps=steps, trained_betas=betas, **fields)
