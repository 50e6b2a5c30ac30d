"""Images of 256 levels as the networks see them: pixel p in 0..255 is x0 = p / 127.5 - 1.

Likelihoods in bits per dimension are those of such pixels, so they mean nothing for other numbers.
"""

import jax
import jax.core
import numpy as np
from jaxtyping import Float, UInt8

from ddpm_jax._typing import AnyArray

OFF = 1e-3
"""How far from a level, in levels, a number may be; float32 rounds by 2e-5 of them."""


def from_uint8(pixels: UInt8[np.ndarray, "b h w c"]) -> Float[np.ndarray, "b h w c"]:
    """x0 in [-1, 1], float32, of pixels 0..255.

    Raises ValueError unless they are uint8 of shape (B, H, W, C).
    """
    array = np.asarray(pixels)
    if array.dtype != np.uint8 or array.ndim != 4 or 0 in array.shape:
        raise ValueError(
            f"pixels must be uint8 of shape (B, H, W, C); got {array.dtype} of shape {array.shape}"
        )
    return (array / 127.5 - 1).astype(np.float32)


def check_levels(x0: Float[AnyArray, "b h w c"]) -> None:
    """Raises ValueError for numbers that are no level. Traced ones are not checked."""
    if isinstance(x0, jax.core.Tracer):
        return
    levels = np.asarray(x0, np.float64) * 127.5 + 127.5
    nearest = np.rint(levels)
    with np.errstate(invalid="ignore"):
        off = ~((np.abs(levels - nearest) <= OFF) & (nearest >= 0) & (nearest <= 255))
    if off.any():
        raise ValueError(
            f"x0 must be p / 127.5 - 1 for pixels p in 0..255; {np.count_nonzero(off)} of "
            f"{off.size} numbers are not, such as {np.asarray(x0)[off].flat[0]:.6g}. Round the "
            "images to 256 levels, or see ddpm_jax.evaluation.levels"
        )
