r"""Diffusion posterior sampling: images from any differentiable measurement (Chung et al. 2023,
arXiv:2209.14687).

After each step of the sampler, the next sample goes down the gradient of the misfit:

    (1)  x' <- x' - zeta grad_x |y - A x0(x)|                  [Algorithm 1, zeta_i = zeta / |.|]

|.| is the Euclidean norm over an image's measurement, whose gradient is that of its square over
twice itself. A may be nonlinear. A step's weight of the output is known, so the output is changed
such that the step moves by (1). That needs tables with one register whose x0 is not refined: those
of DDPM and DDIM without clipping, Euler's, and Euler's ancestral one.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array

from ddpm_jax._typing import is_number
from ddpm_jax.guidance.guide import Guide, Guiding, Images, Output, Params, added
from ddpm_jax.guidance.measurements import residual, values_of
from ddpm_jax.tables.table import Row

SMALLEST = 1e-6
"""Norms below it have no gradient."""


@dataclass(frozen=True)
class PosteriorSampled(Guiding):
    """`denoise` under (1). Values: measure, y, scale."""

    def at_row(self, params: Params, row: Row, x: Images) -> Output:
        """As `Guiding`; one evaluation of the network and one derivative."""
        if row.refine is not None or row.mix.shape[0] != 1:
            raise ValueError(
                "dps changes the step of a table with one register that does not refine x0: "
                "DDPM's and DDIM's with clip_sample=False, or Euler's"
            )

        def misfit(x: Array) -> tuple[Array, Array]:
            x0, output = self.predicted(params, row, x)
            missed = residual(params["measure"], params["y"], x0)
            square = jnp.square(missed).reshape(len(x), -1).sum(axis=1)
            return jnp.sqrt(jnp.maximum(square, SMALLEST**2)).sum(), output

        gradient, output = jax.grad(misfit, has_aux=True)(x)
        weight = row.mix[0, 1].astype(x.dtype)  # of the output in the next sample
        change = -params["scale"] * gradient / jnp.where(weight == 0, jnp.inf, weight)
        return added(output, change)


def dps(measure: Callable[[Array], Array], y: ArrayLike, *, scale: float = 1.0) -> Guide:
    """Guides to images that a measurement fits, which may be nonlinear.

    Args:
        measure: A, differentiable, of samples (B, H, W, C) in [-1, 1]; see
            `ddpm_jax.guidance.measurements`.
        y: measurements of samples in [-1, 1], one for each image, or one for all: (1, ...).
        scale: zeta, > 0; the paper takes 0.3 to 1, for 1000 steps.

    Raises:
        ValueError: a number out of range, or a y that is not finite; at the run, a y of another
            shape; a table with a history or a refined x0.

    >>> import jax, jax.numpy as jnp, ddpm_jax as dj
    >>> unet, params = dj.UNet2DModel.from_pretrained("digits")
    >>> table = dj.DDIMScheduler(clip_sample=False).table(5, eta=1.0)
    >>> keys = dj.sample_keys(jax.random.key(0), 1)
    >>> guide = dj.dps(dj.Downsampled(2), jnp.zeros((1, 4, 4, 1)))
    >>> denoise, given = guide.around(unet.denoise, params)
    >>> dj.sample(denoise, given, table, dj.prior(table, keys, (8, 8, 1)), keys).shape
    (1, 8, 8, 1)
    """
    if not is_number(scale) or not scale > 0:
        raise ValueError(f"scale must be a number above 0, got {scale!r}")
    return Guide(PosteriorSampled, values_of(measure, y) | {"scale": jnp.float32(scale)})
