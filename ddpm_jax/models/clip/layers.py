"""The transformer of CLIP, whose norms come first.

    (1)  x <- x + attention(layer_norm1(x))
    (2)  x <- x + fc2(activation(fc1(layer_norm2(x))))

Reference: Radford et al. 2021, arXiv:2103.00020, section 2.4; Radford et al. 2019 (GPT-2).
"""

from functools import partial

import jax
from flax import linen as nn
from jaxtyping import Array, Float

from ddpm_jax.models.layers.attention import Attention, Mask, Sequence
from ddpm_jax.models.layers.basic import make_layer_norm, make_linear
from ddpm_jax.models.layers.config import Activation, LayerConfig

NAMES = ("q_proj", "k_proj", "v_proj", "out_proj")


def quick_gelu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """X sigmoid(1.702 x): the gelu that OpenAI's CLIP was trained with."""
    return x * jax.nn.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, Activation] = {
    "quick_gelu": quick_gelu,
    "gelu": partial(nn.gelu, approximate=False),
}
"""By their name in a config; gelu is the exact one, with erf."""


class Encoder(nn.Module):
    """Layers in sequence."""

    config: LayerConfig
    layers: int
    heads: int
    inner: int
    eps: float

    @nn.compact
    def __call__(self, x: Sequence, mask: Mask | None = None) -> Sequence:
        """Maps sequences."""
        for i in range(self.layers):
            layer = EncoderLayer(self.config, self.heads, self.inner, self.eps, name=f"layers.{i}")
            x = layer(x, mask)
        return x


class EncoderLayer(nn.Module):
    """Equations (1) and (2)."""

    config: LayerConfig
    heads: int
    inner: int
    eps: float

    @nn.compact
    def __call__(self, x: Sequence, mask: Mask | None = None) -> Sequence:
        """Maps sequences."""
        attention = Attention(self.config, self.heads, names=NAMES, name="self_attn")
        norm = partial(make_layer_norm, self.config, eps=self.eps)
        x = x + attention(norm("layer_norm1")(x), None, mask)
        return x + MLP(self.config, self.inner, name="mlp")(norm("layer_norm2")(x))


class MLP(nn.Module):
    """The linear maps of (2)."""

    config: LayerConfig
    inner: int

    @nn.compact
    def __call__(self, x: Sequence) -> Sequence:
        """Maps sequences."""
        h = self.config.activation(make_linear(self.config, self.inner, "fc1")(x))
        return make_linear(self.config, x.shape[-1], "fc2")(h)
