"""The transformer over the pixels of an image, which reads a context.

For tokens x, which are the pixels row by row,

    (1)  x <- x + attention(norm1(x))                 with only_cross also to the context
    (2)  x <- x + attention(norm2(x), context)
    (3)  x <- x + linear(value gelu(gate)),           value, gate = linear(norm3(x))

and for an image, with depth such blocks between two linear maps of its pixels,

    (4)  y = x + proj_out(blocks(proj_in(norm(x))))

gelu is the exact one, with erf. The norm of (4) has an eps of its own, 1e-6.

Reference: Rombach et al. 2022, arXiv:2112.10752, section 3.3; (3) Shazeer 2020, arXiv:2002.05202
(GEGLU).
"""

from functools import partial

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from ddpm_jax.models.layers.attention import Attention, Context, Sequence
from ddpm_jax.models.layers.basic import (
    Conv,
    Linear,
    make_conv,
    make_layer_norm,
    make_linear,
    make_norm,
)
from ddpm_jax.models.layers.config import ACTIVATIONS, LayerConfig
from ddpm_jax.models.layers.plain import Image

NORM_EPS = 1e-6
"""Of the norm of (4), whatever that of the other norms is."""


class SpatialTransformer(nn.Module):
    """Equation (4)."""

    config: LayerConfig
    heads: int
    depth: int = 1
    linear: bool = False
    """Whether the linear maps of (4) are stored as such, and not as 1x1 convolutions."""
    only_cross: bool = False

    @nn.compact
    def __call__(self, x: Image, context: Context) -> Image:
        """Maps images."""
        b, h, w, channels = x.shape
        width = channels // self.heads * self.heads
        tokens = make_norm(self.config, "norm", eps=NORM_EPS)(x)
        tokens = self._map(width, "proj_in")(tokens).reshape(b, h * w, width)
        for i in range(self.depth):
            block = TransformerBlock(
                self.config, self.heads, self.only_cross, name=f"transformer_blocks.{i}"
            )
            tokens = block(tokens, context)
        return x + self._map(channels, "proj_out")(tokens.reshape(b, h, w, width))

    @nn.nowrap
    def _map(self, features: int, name: str) -> Linear | Conv:
        if self.linear:
            return make_linear(self.config, features, name)
        return make_conv(self.config, features, name, size=1)


class TransformerBlock(nn.Module):
    """Equations (1) to (3)."""

    config: LayerConfig
    heads: int
    only_cross: bool = False

    @nn.compact
    def __call__(self, x: Sequence, context: Context) -> Sequence:
        """Maps sequences."""
        attention = partial(Attention, self.config, self.heads, use_bias=False)
        norm = partial(make_layer_norm, self.config)
        x = x + attention(name="attn1")(norm("norm1")(x), context if self.only_cross else None)
        x = x + attention(name="attn2")(norm("norm2")(x), context)
        return x + FeedForward(self.config, name="ff")(norm("norm3")(x))


class FeedForward(nn.Module):
    """The linear maps of (3), of four times the width inside."""

    config: LayerConfig

    @nn.compact
    def __call__(self, x: Sequence) -> Sequence:
        """Maps sequences."""
        width = x.shape[-1]
        h = GatedLinear(self.config, 4 * width, name="net.0")(x)
        return make_linear(self.config, width, "net.2")(h)


class GatedLinear(nn.Module):
    """value gelu(gate)."""

    config: LayerConfig
    features: int

    @nn.compact
    def __call__(self, x: Float[Array, "b n c"]) -> Float[Array, "b n c2"]:
        """Maps sequences."""
        h = make_linear(self.config, 2 * self.features, "proj")(x)
        value, gate = jnp.split(h, 2, axis=-1)
        return value * ACTIVATIONS["gelu"](gate)
