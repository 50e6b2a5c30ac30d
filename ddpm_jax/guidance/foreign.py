r"""Networks of other parameterisations as `denoise`, under the table of any scheduler.

At a row x = alpha x0 + sigma eps. With s = sigma / alpha and u = sigma / (alpha + sigma) the
network is one of

    (1)  D(x / alpha, s) = x0                             k-diffusion's denoisers
    (2)  F(x / (alpha h), log(s) / 4),  h^2 = s^2 + sigma_data^2,
         x0 = sigma_data^2 / h^2 x / alpha + s sigma_data / h F
                                                          Karras et al. 2022, arXiv:2206.00364
    (3)  v(x / (alpha + sigma), u) = eps - x0             flow matching, arXiv:2210.02747

and answers with the output that the table reads as this x0. So a flow network runs under DDIM's
table, and a denoiser under that of flow matching. Every row must have a signal, alpha > 0, for (1)
and (2).
"""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from ddpm_jax._typing import is_number
from ddpm_jax.guidance.guide import Images
from ddpm_jax.tables.table import Row

Network = Callable[[Any, Images, Float[Array, ""]], Images]
"""network(params, x, level) -> (B, H, W, C)."""


@dataclass(frozen=True)
class Foreign:
    """Base: `denoise` of another parameterisation; it must be run by the functions of this library.

    Attributes:
        network: network(params, x, level); compared by identity.
    """

    network: Network

    def __call__(self, params: Any, x: Images, timestep: Any) -> Array:
        """Raises TypeError: such a network does not know timesteps."""
        raise TypeError(
            f"{type(self).__name__} is asked at rows of a table: pass it to ddpm_jax.sample"
        )

    def at_row(self, params: Any, row: Row, x: Images) -> Images:
        """The output that the row reads as the network's x0; x is register 0."""
        alpha, sigma = (jnp.asarray(one, x.dtype) for one in row.level)
        weights = row.to_x0.astype(x.dtype)
        return (self.x0(params, x, alpha, sigma) - weights[0] * x) / weights[1]

    @abstractmethod
    def x0(self, params: Any, x: Images, alpha: Array, sigma: Array) -> Images:
        """The x0 that the network predicts."""


@dataclass(frozen=True)
class FromDenoiser(Foreign):
    """Equation (1)."""

    def x0(self, params: Any, x: Images, alpha: Array, sigma: Array) -> Images:
        """As `Foreign`."""
        return self.network(params, x / alpha, sigma / alpha)


@dataclass(frozen=True)
class FromPreconditioned(Foreign):
    """Equation (2)."""

    sigma_data: float

    def x0(self, params: Any, x: Images, alpha: Array, sigma: Array) -> Images:
        """As `Foreign`."""
        level = sigma / alpha
        h = jnp.hypot(level, self.sigma_data)
        output = self.network(params, x / (alpha * h), jnp.log(level) / 4)
        return (self.sigma_data / h) ** 2 * x / alpha + level * self.sigma_data / h * output


@dataclass(frozen=True)
class FromVelocity(Foreign):
    """Equation (3), or its mirror image."""

    data_at_one: bool

    def x0(self, params: Any, x: Images, alpha: Array, sigma: Array) -> Images:
        """As `Foreign`."""
        u, scaled = sigma / (alpha + sigma), x / (alpha + sigma)
        if self.data_at_one:
            return scaled + u * self.network(params, scaled, 1 - u)
        return scaled - u * self.network(params, scaled, u)


def from_denoiser(network: Network) -> FromDenoiser:
    """`denoise` of D(params, x, sigma) = x0, with x = x0 + sigma eps.

    Args:
        network: x (B, H, W, C) and sigma () to x0. Two results for one network are equal.

    >>> import jax, jax.numpy as jnp, ddpm_jax as dj
    >>> def denoiser(params, x, sigma):  # exact for data of standard deviation 1 / 2
    ...     return x / (1 + 4 * sigma**2)
    >>> keys = dj.sample_keys(jax.random.key(0), 500)
    >>> table = dj.DPMSolverMultistepScheduler().table(20)
    >>> x_T = dj.prior(table, keys, shape=(2, 2, 1))
    >>> images = dj.sample(dj.from_denoiser(denoiser), None, table, x_T)
    >>> abs(float(images.std()) - 0.5) < 0.05
    True
    """
    return FromDenoiser(network)


def from_preconditioned(network: Network, sigma_data: float = 0.5) -> FromPreconditioned:
    """`denoise` of F(params, scaled x, log(sigma) / 4) in the preconditioning of EDM.

    Args:
        network: the inner network F.
        sigma_data: standard deviation of the data, > 0.

    Raises:
        ValueError: `sigma_data` is not above 0.

    >>> import jax, jax.numpy as jnp, ddpm_jax as dj
    >>> def inner(params, x, level):  # it says nothing: x0 is c_skip x
    ...     return jnp.zeros_like(x)
    >>> table = dj.EDMEulerScheduler().table(20)
    >>> x_T = dj.prior(table, dj.sample_keys(jax.random.key(0), 2), shape=(2, 2, 1))
    >>> dj.sample(dj.from_preconditioned(inner), None, table, x_T).shape
    (2, 2, 2, 1)
    """
    if not is_number(sigma_data) or not sigma_data > 0:
        raise ValueError(f"sigma_data must be a number above 0, got {sigma_data!r}")
    return FromPreconditioned(network, float(sigma_data))


def from_velocity(network: Network, *, data_at_one: bool = False) -> FromVelocity:
    """`denoise` of a flow's velocity on straight paths.

    Args:
        network: v(params, x, u) at x = (1 - u) x0 + u eps, u in [0, 1], which answers eps - x0.
        data_at_one: the mirror image: time is 1 at the data, and the network answers x0 - eps.

    >>> import jax, jax.numpy as jnp, ddpm_jax as dj
    >>> def velocity(params, x, time):  # of data at 0: x = u eps, so eps - x0 is x / u
    ...     return -x / (1 - time)
    >>> table = dj.DDIMScheduler(clip_sample=False).table(10)
    >>> x_T = dj.prior(table, dj.sample_keys(jax.random.key(0), 2), shape=(2, 2, 1))
    >>> images = dj.sample(dj.from_velocity(velocity, data_at_one=True), None, table, x_T)
    >>> float(abs(images).max()) < 1e-5
    True
    """
    return FromVelocity(network, data_at_one)
