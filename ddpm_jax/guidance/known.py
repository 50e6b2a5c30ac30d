"""Inpainting with any network: the known part of the images is put back before every evaluation.

    (1)  x <- mask x + (1 - mask) (alpha known + sigma noise)

alpha and sigma are those of the row. The noise is one draw for all rows, or one for each: that of
the row before, which is used in the unknown part alone. Row 0 is left as it is. After the last row
the known part itself takes its place: `put_back`.

References: Song et al. 2021, arXiv:2011.13456, appendix I.2; Lugmayr et al. 2022 (RePaint),
arXiv:2201.09865, eq. 8; with one draw Avrahami et al. 2023, arXiv:2206.02779, section 4.1.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from ddpm_jax.guidance.guide import Images, Output, Params
from ddpm_jax.sampling.forward import add_noise
from ddpm_jax.sampling.keys import noise
from ddpm_jax.tables.table import Row


@dataclass(frozen=True)
class WithKnown:
    """`denoise` with known parts. Its params are those of the inner one and {"mask": (B, H, W, 1),
    1 where the images are made, "known": (B, H, W, C), "noise": (B, H, W, C) of unit variance}; or
    "keys", those of the run, in place of "noise", for a draw at each row.
    """

    denoise: Callable[..., Array]

    def __call__(self, params: Params, x: Images, timestep: Float[Array, ""]) -> Output:
        """The output of the inner `denoise`."""
        return self.denoise(params, x, timestep)

    def replaced(self, params: Params, i: Any, row: Row, x: Images) -> Images:
        """Equation (1)."""
        level = jnp.asarray(row.level)
        drawn = noise(params["keys"], i - 1, x.shape[1:]) if "keys" in params else params["noise"]
        noised = add_noise(params["known"], drawn, level[0], level[1])
        return jnp.where(i > 0, put_back(x, params["mask"], noised), x)


def put_back(x: Images, mask: Float[Array, "b h w 1"], known: Images) -> Images:
    """The images with their known part, where the mask is 0."""
    return mask * x + (1 - mask) * known
