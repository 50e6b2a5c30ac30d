r"""Plug-and-play restoration with a network's x0 (Zhu et al. 2023, arXiv:2305.08995).

For a measurement y = A x0 + std n, the predicted x0 of a row becomes the nearest image that fits:

    (1)  argmin_z  |y - A z|^2 / (2 std^2) + lambda |z - x0|^2 / (2 (sigma / alpha)^2)    [eq. 13]

which is for a linear A

    (2)  x0 + A^T (A A^T + c)^-1 (y - A x0),   c = lambda std^2 / (sigma / alpha)^2.

No derivative of the network is needed. The paper's sampler is DDIM's with a share of new noise in
every step; here eta of `DDIMScheduler.table` sets it, and any other table runs too.
"""

from dataclasses import dataclass

import jax.numpy as jnp
from jax.typing import ArrayLike

from ddpm_jax._typing import is_number
from ddpm_jax.guidance.guide import Guide, Guiding, Images, Output, Params, moved
from ddpm_jax.guidance.measurements import Measure, explained, residual, values_of
from ddpm_jax.tables.table import Row


@dataclass(frozen=True)
class PlugAndPlay(Guiding):
    """`denoise` under (2). Values: measure, y, std, weight."""

    def at_row(self, params: Params, row: Row, x: Images) -> Output:
        """As `Guiding`; one evaluation of the network."""
        measure = params["measure"]
        x0, output = self.predicted(params, row, x)
        alpha, sigma = (jnp.asarray(one, x.dtype) for one in row.level)
        c = params["weight"] * (params["std"] * alpha / sigma) ** 2
        missed = residual(measure, params["y"], x0)
        return moved(row, output, explained(measure, missed, x, 1.0, c))


def diffpir(measure: Measure, y: ArrayLike, std: float = 0.0, *, weight: float = 1.0) -> Guide:
    """Guides to images that a linear measurement fits, without derivatives of the network.

    Args:
        measure: A, of samples (B, H, W, C) in [-1, 1]; see `ddpm_jax.guidance.measurements`.
        y: measurements of samples in [-1, 1], one for each image, or one for all: (1, ...).
        std: standard deviation of the measurements' noise, at least 0; at 0 each predicted x0 fits
            exactly.
        weight: lambda, > 0; the paper takes 1 to 25.

    Raises:
        ValueError: a number out of range, or a y that is not finite; at the run, a y of another
            shape.

    >>> import jax, jax.numpy as jnp, ddpm_jax as dj
    >>> pipe = dj.DDIMPipeline.from_pretrained("digits")
    >>> mask = jnp.zeros((8, 8, 1)).at[:, :4].set(1.0)
    >>> guide = dj.diffpir(dj.Masked(mask), mask[None] * 0.5)
    >>> image = pipe(
    ...     jax.random.key(0), num_inference_steps=5, guide=guide, output_type="np", progress=False
    ... ).images[0]
    >>> float(abs(image[:, :4] - 0.75).max()) < 1e-4
    True
    """
    if not is_number(weight) or not weight > 0:
        raise ValueError(f"weight must be a number above 0, got {weight!r}")
    return Guide(PlugAndPlay, values_of(measure, y, std) | {"weight": jnp.float32(weight)})
