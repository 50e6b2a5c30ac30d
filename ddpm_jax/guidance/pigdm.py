r"""Pseudoinverse-guided diffusion: images from a linear measurement (Song et al. 2023, ICLR,
"Pseudoinverse-Guided Diffusion Models for Inverse Problems").

For a measurement y = A x0 + std n, the likelihood at a noise level is taken as that of data whose
covariance given x is r^2:

    (1)  p(y | x) = N(y; A x0(x), r^2 A A^T + std^2),   r^2 = s^2 sigma^2 / (s^2 alpha^2 + sigma^2)

with s the standard deviation of the data, 1 in the paper. So with the derivative J of x0(x)

    (2)  grad log p = J^T A^T (r^2 A A^T + std^2)^-1 (y - A x0(x)).      [equation 7]

It moves x0 by equation (1) of `ddpm_jax.guidance.guide`, where any sampler can use it; the paper's
Algorithm 1 adds alpha r^2 times (2) to DDIM's next sample. By Tweedie's formula (sigma^2 / alpha) J
is the covariance of x0 given x. A network's derivative has errors, which alpha divides twice there,
so that covariance is mixed with r^2:

    (3)  x0 + C u,   C = w (sigma^2 / alpha) J^T + (1 - w) r^2,   w = alpha^2 / (alpha^2 + sigma^2),

u being A^T (...)^-1 (y - A x0(x)). For normally distributed data of standard deviation s both are
the same, and (3) is exact.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ddpm_jax._typing import is_number
from ddpm_jax.guidance.guide import Guide, Guiding, Images, Output, Params, by_tweedie, moved
from ddpm_jax.guidance.measurements import Measure, explained, residual, values_of
from ddpm_jax.tables.table import Row


@dataclass(frozen=True)
class PseudoinverseGuided(Guiding):
    """`denoise` under (3). Values: measure, y, std, data_std, scale."""

    def at_row(self, params: Params, row: Row, x: Images) -> Output:
        """As `Guiding`; one evaluation of the network and one derivative."""
        measure = params["measure"]

        x0, back, output = jax.vjp(partial(self.predicted, params, row), x, has_aux=True)
        alpha, sigma = (jnp.asarray(one, x.dtype) for one in row.level)
        s2 = params["data_std"] ** 2
        r2 = s2 * sigma**2 / (s2 * alpha**2 + sigma**2)
        u = explained(measure, residual(measure, params["y"], x0), x, r2, params["std"] ** 2)
        (gradient,) = back(u)
        w = alpha**2 / (alpha**2 + sigma**2)
        change = w * by_tweedie(row, gradient) + (1 - w) * r2 * u  # (3)
        return moved(row, output, params["scale"] * change)


def pigdm(
    measure: Measure, y: ArrayLike, std: float = 0.0, *, data_std: float = 1.0, scale: float = 1.0
) -> Guide:
    """Guides to images that a linear measurement fits.

    Args:
        measure: A, of samples (B, H, W, C) in [-1, 1]; see `ddpm_jax.guidance.measurements`.
        y: measurements of samples in [-1, 1], one for each image, or one for all: (1, ...).
        std: standard deviation of the measurements' noise, at least 0.
        data_std: s in (1), > 0; images in [-1, 1] have about 0.5.
        scale: of the change, >= 0; 1 in the paper.

    Raises:
        ValueError: a number out of range, or a y that is not finite; at the run, a y of another
            shape.

    >>> import jax, jax.numpy as jnp, ddpm_jax as dj
    >>> pipe = dj.DDIMPipeline.from_pretrained("digits")
    >>> small = jnp.zeros((1, 4, 4, 1))
    >>> guide = dj.pigdm(dj.Downsampled(2), small, std=0.05)
    >>> pipe(jax.random.key(0), num_inference_steps=5, guide=guide, progress=False).images[0].size
    (8, 8)
    """
    for name, value in (("data_std", data_std), ("scale", scale)):
        if not is_number(value) or not value >= 0 or (name == "data_std" and not value):
            raise ValueError(f"{name} must be a number above 0, got {value!r}")
    own = {"data_std": jnp.float32(data_std), "scale": jnp.float32(scale)}
    return Guide(PseudoinverseGuided, values_of(measure, y, std) | own)
