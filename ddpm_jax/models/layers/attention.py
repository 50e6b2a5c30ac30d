"""Self-attention over the pixels of a picture, as a residual block.

    (1)  q, k, v = linear(norm(x))                          (heads, pixels, head_dim)
    (2)  h = softmax(q k^T / sqrt(head_dim)) v              softmax in float32
    (3)  y = (x + linear(h)) / output_scale

heads = channels // head_dim: where head_dim does not divide the channels, the width inside is the
smaller heads * head_dim.

Reference: Ho et al. 2020, appendix B, arXiv:2006.11239; Vaswani et al. 2017, arXiv:1706.03762.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from ddpm_jax.models.layers.basic import make_linear, make_norm
from ddpm_jax.models.layers.config import Style
from ddpm_jax.models.layers.convolve import Image


class Attention(nn.Module):
    """Equations (1) to (3); `groups` of its norm, 0 for none."""

    style: Style
    groups: int
    output_scale: float = 1.0

    @nn.compact
    def __call__(self, x: Image) -> Image:
        """Maps pictures."""
        style, (b, h, w, c) = self.style, x.shape
        head_dim = style.head_dim or c
        heads = c // head_dim

        normed = make_norm(style, "group_norm", groups=self.groups)(x) if self.groups else x
        pixels = normed.reshape(b, h * w, c)
        q, k, v = (
            make_linear(style, heads * head_dim, name)(pixels).reshape(b, h * w, heads, head_dim)
            for name in ("to_q", "to_k", "to_v")
        )
        mixed = attend(q, k, v).reshape(b, h * w, heads * head_dim)
        out = make_linear(style, c, "to_out.0")(mixed)
        return (x + out.reshape(x.shape)) / self.output_scale


def attend(
    q: Float[Array, "b n k d"], k: Float[Array, "b n k d"], v: Float[Array, "b n k d"]
) -> Float[Array, "b n k d"]:
    """Equation (2)."""
    scores = jnp.einsum("bqhd,bkhd->bhqk", q, k, preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(scores * q.shape[-1] ** -0.5, axis=-1).astype(v.dtype)
    return jnp.einsum("bhqk,bkhd->bqhd", weights, v)
