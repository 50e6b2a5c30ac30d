r"""Likelihoods in bits per dimension: the variational bound, one timestep at a time.

    (1)  t > 0:  L_t = KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t))
    (2)  t = 0:  L_0 = -log p(x_0 | x_1) for images with 256 levels in [-1, 1]
    (3)  KL(N(m, s^2) || N(m', s'^2)) = log(s' / s) + (s^2 + (m - m')^2) / (2 s'^2) - 1/2
    (4)  the end:  L_T = KL(q(x_{T-1} | x_0) || N(0, I))

The mean and the variance of q are equations (1) and (2) of `ddpm_jax.schedulers.ddpm`. The mean of
p has the predicted x0 in place of x0, clipped or not. At t = 0 the variance of q is 0; as in
improved DDPM, that of t = 1 is used. Timesteps count from 0, so the noisiest image is x_{T-1}; the
name L_T in (4) is the papers'.

References: Ho et al. 2020, arXiv:2006.11239, eqs. 5 to 7 and 13; Nichol and Dhariwal 2021,
arXiv:2102.09672, section 3.1.
"""

from dataclasses import dataclass
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from ddpm_jax.schedulers.ddpm import DDPMScheduler, posterior_mean, posterior_variances
from ddpm_jax.tables.builder import Level
from ddpm_jax.tables.readings import reading

BIN = 1 / 255
"""Half the distance between two of 256 levels in [-1, 1]."""

NATS_PER_BIT = np.float32(np.log(2))


@dataclass(frozen=True, eq=False)
class Posterior:
    """Coefficients of (1) for every training timestep, float64 on the host.

    Attributes:
        true_mean: (T, 2) q's mean, of (x, x0).
        true_log_var: (T,) q's log variance.
        x0: (T, 2) the predicted x0, of (x, output).
        mean: (T, 2) p's mean, of (x, output).
        log_var: (T, 2) the bounds of p's log variance, equal if it is not learned.
    """

    true_mean: Float[np.ndarray, "T 2"]
    true_log_var: Float[np.ndarray, "T"]
    x0: Float[np.ndarray, "T 2"]
    mean: Float[np.ndarray, "T 2"]
    log_var: Float[np.ndarray, "T 2"]


def posterior(scheduler: DDPMScheduler) -> Posterior:
    """The coefficients for a scheduler's config, from timestep t to t - 1 for every t.

    Raises:
        ValueError: there are fewer than two training timesteps.
    """
    if scheduler.num_train_timesteps < 2:
        raise ValueError("the variational bound needs num_train_timesteps of at least 2")
    schedule = scheduler.noise_schedule
    clean = Level(0.0, 1.0, 0.0)
    levels = [clean, *map(Level, range(len(schedule.alpha)), schedule.alpha, schedule.sigma)]
    steps = [(level, end) for end, level in pairwise(levels)]
    small, large = np.array([posterior_variances(*step) for step in steps]).T
    small[0] = small[1]
    bounds = {
        "learned": (np.full_like(small, -1.0), np.ones_like(small)),
        "learned_range": (np.log(small), np.log(large)),
        "fixed_small": (np.log(small), np.log(small)),
        "fixed_large": (np.log(np.append(small[0], large[1:])),) * 2,
    }[scheduler.variance_type.removesuffix("_log")]
    true_mean = np.array([[m["x"], m["x0"]] for m in (posterior_mean(*step) for step in steps)])
    kind = scheduler.prediction_type
    x0 = np.array([reading(kind, level.alpha, level.sigma).x0 for level, _ in steps])
    mean = true_mean[:, 1:] * x0
    mean[:, 0] += true_mean[:, 0]
    return Posterior(true_mean, np.log(small), x0, mean, np.stack(bounds, axis=1))


def bound_terms(
    of: Posterior,
    timestep: Int[Array, " b"],
    x0: Float[Array, "b h w c"],
    x: Float[Array, "b h w c"],
    output: Float[Array, "b h w c"],
    values: Float[Array, "b h w c"] | None,
    predicted: Float[Array, "b h w c"] | None = None,
) -> Float[Array, " b"]:
    """L_t of (1) and (2) for each image, in bits per dimension.

    Args:
        of: the coefficients.
        timestep: the timestep of each image.
        x0: clean images in [-1, 1].
        x: noised images.
        output: the prediction of the network.
        values: the second half of its output, for a learned variance: -1 and 1 mean the bounds.
        predicted: a predicted x0 that replaces the output's, such as a clipped one.
    """
    true_mean = _combined(of.true_mean, timestep, x, x0)
    if predicted is None:
        mean = _combined(of.mean, timestep, x, output)
    else:
        mean = _combined(of.true_mean, timestep, x, predicted)
    low, high = (_at(of.log_var[:, k], timestep) for k in (0, 1))
    share = 0.5 if values is None else (values + 1) / 2
    log_var = low + share * (high - low)
    kl = normal_kl(true_mean, _at(of.true_log_var, timestep), mean, log_var)
    nll = -discretised_log_likelihood(x0, mean, log_var / 2)
    nats = jnp.where((timestep == 0)[:, None, None, None], nll, kl)
    return nats.mean((1, 2, 3)) / NATS_PER_BIT


def predicted_x0(
    of: Posterior,
    timestep: Int[Array, " b"],
    x: Float[Array, "b h w c"],
    output: Float[Array, "b h w c"],
) -> Float[Array, "b h w c"]:
    """The x0 that the network predicts for noised images; arguments as in `bound_terms`."""
    return _combined(of.x0, timestep, x, output)


def prior_term(x0: Float[Array, "b h w c"], alpha: float, sigma: float) -> Float[Array, " b"]:
    """L_T of (4) for each image, in bits per dimension.

    Args:
        x0: clean images in [-1, 1].
        alpha: signal scale of the last timestep.
        sigma: noise scale of the last timestep, > 0.
    """
    log_var = jnp.full_like(x0, 2 * np.log(sigma))
    zero = jnp.zeros_like(x0)
    return normal_kl(alpha * x0, log_var, zero, zero).mean((1, 2, 3)) / NATS_PER_BIT


def _combined(
    column: Float[np.ndarray, "T 2"], timestep: Int[Array, " b"], a: Array, b: Array
) -> Float[Array, "b h w c"]:
    """A sum of two images with the weights of each one's timestep."""
    return _at(column[:, 0], timestep) * a + _at(column[:, 1], timestep) * b


def _at(column: Float[np.ndarray, "T"], timestep: Int[Array, " b"]) -> Float[Array, "b 1 1 1"]:
    return jnp.asarray(column, jnp.float32)[timestep][:, None, None, None]


def normal_kl(
    mean: Float[Array, "..."],
    log_var: Float[Array, "..."],
    other_mean: Float[Array, "..."],
    other_log_var: Float[Array, "..."],
) -> Float[Array, "..."]:
    """Equation (3) for log variances, in nats."""
    gap = log_var - other_log_var
    return 0.5 * (jnp.expm1(gap) - gap + (mean - other_mean) ** 2 * jnp.exp(-other_log_var))


def discretised_log_likelihood(
    x0: Float[Array, "..."], mean: Float[Array, "..."], log_std: Float[Array, "..."]
) -> Float[Array, "..."]:
    """The log probability of x0's bin under a Gaussian, with 256 bins in [-1, 1], in nats.

    The first and the last bin extend to infinity (arXiv:2006.11239, eq. 13). log(Phi(b) - Phi(a))
    is computed in the tail where both are small, in logarithms, so that no far bin has mass 0.
    """
    centered, scale = x0 - mean, jnp.exp(-log_std)
    upper, lower = (centered + BIN) * scale, (centered - BIN) * scale
    # By symmetry Phi(b) - Phi(a) = Phi(-a) - Phi(-b): bins above the mean are mirrored.
    mirrored = centered > 0
    high, low = jnp.where(mirrored, -lower, upper), jnp.where(mirrored, -upper, lower)
    log_high, log_low = _log_phi(high), _log_phi(low)
    # -1e-6 keeps the logarithm and its gradient finite if both round to the same float32.
    inside = log_high + jnp.log(-jnp.expm1(jnp.minimum(log_low - log_high, -1e-6)))
    edge = 1 - BIN / 2
    return lax.select(x0 < -edge, _log_phi(upper), lax.select(x0 > edge, _log_phi(-lower), inside))


def _log_phi(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """The logarithm of Phi(x), below -20 by its asymptotic series in 1 / x^2.

    The derivative of `log_ndtr` is the exponential of a difference of two numbers that grow with
    x^2. In float32 its error is 2 % at -1,600, and at -10,000 it is a third of the correct value.
    """
    # At -20 the first term that the series omits, 15 r^3, is 2e-7, below the rounding of -203.9.
    far = jnp.minimum(x, -20.0)
    r = 1 / far**2
    series = -0.5 * far**2 - jnp.log(-far) - 0.5 * np.log(2 * np.pi) + jnp.log1p(3 * r**2 - r)
    return jnp.where(x < -20, series, jax.scipy.special.log_ndtr(jnp.maximum(x, -20.0)))
