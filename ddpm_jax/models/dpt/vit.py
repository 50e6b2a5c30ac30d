"""The transformer of DPT, under the names that transformers gives to the layers of a ViT.

    (1)  x <- x + attention(layernorm_before(x))
    (2)  x <- x + output(activation(intermediate(layernorm_after(x))))

Reference: Dosovitskiy et al. 2021, arXiv:2010.11929.
"""

from functools import partial

from flax import linen as nn
from jaxtyping import Array, Float

from ddpm_jax.models.layers.attention import Sequence, attend
from ddpm_jax.models.layers.basic import make_layer_norm, make_linear
from ddpm_jax.models.layers.config import LayerConfig

Heads = Float[Array, "b n k d"]


class Encoder(nn.Module):
    """Layers in sequence."""

    config: LayerConfig
    layers: int
    heads: int
    inner: int
    eps: float
    qkv_bias: bool

    @nn.compact
    def __call__(self, x: Sequence) -> list[Sequence]:
        """The sequences after each layer."""
        found = []
        for i in range(self.layers):
            x = EncoderLayer(
                self.config, self.heads, self.inner, self.eps, self.qkv_bias, name=f"layer.{i}"
            )(x)
            found.append(x)
        return found


class EncoderLayer(nn.Module):
    """Equations (1) and (2)."""

    config: LayerConfig
    heads: int
    inner: int
    eps: float
    qkv_bias: bool

    @nn.compact
    def __call__(self, x: Sequence) -> Sequence:
        """Maps sequences."""
        config, norm = self.config, partial(make_layer_norm, self.config, eps=self.eps)
        attention = SelfAttention(config, self.heads, self.qkv_bias, name="attention")
        x = x + attention(norm("layernorm_before")(x))
        h = Dense(config, self.inner, name="intermediate")(norm("layernorm_after")(x))
        return x + Dense(config, x.shape[-1], name="output")(config.activation(h))


class SelfAttention(nn.Module):
    """The attention of (1)."""

    config: LayerConfig
    heads: int
    qkv_bias: bool

    @nn.compact
    def __call__(self, x: Sequence) -> Sequence:
        """Maps sequences."""
        q, k, v = Projections(self.config, self.heads, self.qkv_bias, name="attention")(x)
        return Dense(self.config, x.shape[-1], name="output")(attend(q, k, v).reshape(x.shape))


class Projections(nn.Module):
    """Queries, keys and values."""

    config: LayerConfig
    heads: int
    use_bias: bool

    @nn.compact
    def __call__(self, x: Sequence) -> tuple[Heads, Heads, Heads]:
        """Of sequences."""
        b, n, c = x.shape

        def project(name: str) -> Heads:
            y = make_linear(self.config, c, name, self.use_bias)(x)
            return y.reshape(b, n, self.heads, c // self.heads)

        return project("query"), project("key"), project("value")


class Dense(nn.Module):
    """A linear map in a module of its own."""

    config: LayerConfig
    features: int

    @nn.compact
    def __call__(self, x: Float[Array, "b n c"]) -> Float[Array, "b n d"]:
        """Maps sequences."""
        return make_linear(self.config, self.features, "dense")(x)
