"""The layers with parameters: linear, convolution, GroupNorm, LayerNorm.

GroupNorm, a FiLM after it and the activation are one affine map per image and channel:

    (1)  gain = scale / sqrt(var + eps)     offset = bias - mean gain
    (2)  gain <- gain (1 + film_scale)      offset <- offset (1 + film_scale) + film_shift
    (3)  y = activation(gain x + offset)

mean and var are those of the channel's group. They take one pass over x: the sums of a channel c
are taken around its first pixel k_c, so that nothing cancels where a channel lies far from 0. Then
channels are joined to groups:

    (4)  m_c = k_c + E[x - k_c]     v_c = E[(x - k_c)^2] - E[x - k_c]^2
    (5)  mean = E_c[m_c]     var = E_c[v_c + (m_c - mean)^2]

LayerNorm is (1) and (3) over the channels of one token. Statistics are float32 in every dtype.

Reference: Wu & He 2018, arXiv:1803.08494 (GroupNorm); Ba et al. 2016, arXiv:1607.06450 (LayerNorm);
Perez et al. 2017, arXiv:1709.07871 (FiLM); Chan, Golub & LeVeque 1983, Algorithms for computing the
sample variance, doi:10.1080/00031305.1983.10483115 (4, 5).
"""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float
from numpy import dtype as Dtype

from ddpm_jax.models.layers.config import Activation, LayerConfig
from ddpm_jax.models.layers.convolve import convolve, convolve_doubled
from ddpm_jax.models.layers.plain import Image, Output, Padding, dot

Film = tuple[Float[Array, "b c"], Float[Array, "b c"]]
"""Scale (around 0) and shift of each channel of each image."""


@partial(jax.jit, static_argnums=(1, 2))
def uniform(key: Any, shape: Any, dtype: Any = jnp.float32) -> Array:
    """U(-1/sqrt(fan_in), 1/sqrt(fan_in)): how torch draws the kernels of these layers. Compiled,
    and so traced once a shape: Flax asks for the shape at each evaluation of each layer.
    """
    return nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")(key, shape, dtype)


def uniform_bias(fan_in: int) -> nn.initializers.Initializer:
    """The same interval for a bias, with the fan-in of its kernel."""
    return partial(_between, bound=1 / math.sqrt(fan_in))


@partial(jax.jit, static_argnums=(1, 2), static_argnames="bound")
def _between(key: Any, shape: Any, dtype: Any = jnp.float32, *, bound: float) -> Array:
    draw = nn.initializers.uniform(2 * bound)(key, shape, jnp.float32)
    return (draw - bound).astype(dtype)


class Linear(nn.Module):
    """kernel^T x + bias over the last axis; kernel (in, features)."""

    features: int
    dtype: Dtype
    param_dtype: Dtype
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "*batch c"]) -> Float[Array, "*batch c2"]:
        """Maps the last axis."""
        channels = x.shape[-1]
        kernel = self.param("kernel", uniform, (channels, self.features), self.param_dtype)
        y = dot(x.astype(self.dtype), kernel)
        if not self.use_bias:
            return y
        bias = self.param("bias", uniform_bias(channels), (self.features,), self.param_dtype)
        return y + _as_channels(bias, y)


class Conv(nn.Module):
    """Convolution; kernel (size, size, in, features)."""

    features: int
    dtype: Dtype
    param_dtype: Dtype
    size: int = 3
    stride: int = 1
    padding: Padding | None = None
    """None: `size // 2` on all sides."""
    train: bool = False
    """Training mode, see `ddpm_jax.models.layers.cpu`."""
    doubled: bool = False
    """Convolves the image at twice its size (nearest neighbor); size 3, stride 1, padding 1."""
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Image) -> Output:
        """Maps images."""
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", uniform, shape, self.param_dtype)
        x = x.astype(self.dtype)
        if self.doubled:
            y = convolve_doubled(x, kernel, self.train)
        else:
            edge = (self.size // 2, self.size // 2)
            y = convolve(x, kernel, self.stride, self.padding or (edge, edge), self.train)
        if not self.use_bias:
            return y
        bias_init = uniform_bias(math.prod(shape[:3]))
        bias = self.param("bias", bias_init, (self.features,), self.param_dtype)
        return y + _as_channels(bias, y)


def _as_channels(values: Float[Array, " c"], like: Float[Array, "*batch c"]) -> Array:
    """Values for the last axis of `like`, in its rank and dtype."""
    return values.astype(like.dtype).reshape((1,) * (like.ndim - 1) + (-1,))


class GroupNorm(nn.Module):
    """Equations (1) to (3), all in float32 at least, the result in `dtype`."""

    groups: int | None
    """None: `default_groups`."""
    eps: float
    dtype: Dtype
    param_dtype: Dtype
    activation: Activation | None = None
    """None: the identity."""

    @nn.compact
    def __call__(self, x: Image, film: Film | None = None) -> Image:
        """Maps images; without a film equation (2) is left out."""
        shape = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, shape, self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, shape, self.param_dtype)
        groups = self.groups or default_groups(x.shape[-1])
        y = _normalized(x, scale, bias, film, groups, self.eps, self.activation)
        return y.astype(self.dtype)


@partial(jax.jit, static_argnums=(4, 5, 6), inline=True)  # traced once a shape
def _normalized(
    x: Image,
    scale: Float[Array, " c"],
    bias: Float[Array, " c"],
    film: Film | None,
    groups: int,
    eps: float,
    activation: Activation | None,
) -> Image:
    """Equations (1) to (3), in float32 at least."""
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    mean, var = moments(x, groups)
    gain = scale.astype(x.dtype)[None] * lax.rsqrt(var + eps)
    offset = bias.astype(x.dtype)[None] - mean * gain
    if film is not None:
        film_scale, film_shift = (value.astype(x.dtype) for value in film)
        gain = gain * (1 + film_scale)
        offset = offset * (1 + film_scale) + film_shift
    y = x * gain[:, None, None] + offset[:, None, None]
    return y if activation is None else activation(y)


class LayerNorm(nn.Module):
    """Equation (1) over the last axis, in float32 at least; the result in `dtype`."""

    eps: float
    dtype: Dtype
    param_dtype: Dtype

    @nn.compact
    def __call__(self, x: Float[Array, "*batch c"]) -> Float[Array, "*batch c"]:
        """Maps the last axis."""
        shape = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, shape, self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, shape, self.param_dtype)
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        centered = x - x.mean(-1, keepdims=True)
        y = centered * lax.rsqrt(jnp.square(centered).mean(-1, keepdims=True) + self.eps)
        return (y * _as_channels(scale, y) + _as_channels(bias, y)).astype(self.dtype)


def default_groups(channels: int) -> int:
    """Groups of a GroupNorm that is given no number: 4 channels each, but 32 groups at most."""
    return min(channels // 4, 32)


def moments(x: Image, groups: int) -> tuple[Float[Array, "b c"], Float[Array, "b c"]]:
    """Mean and biased variance of each channel's group: equations (4) and (5)."""
    b, _, _, c = x.shape
    first = lax.stop_gradient(x[:, 0, 0])  # neither depends on it
    shifted = x - first[:, None, None]
    apart = shifted.mean((1, 2))
    own_var = jnp.square(shifted).mean((1, 2)) - jnp.square(apart)

    grouped = (b, groups, c // groups)
    own_mean = (first + apart).reshape(grouped)
    mean = own_mean.mean(-1, keepdims=True)
    var = (own_var.reshape(grouped) + jnp.square(own_mean - mean)).mean(-1, keepdims=True)
    mean, var = (jnp.broadcast_to(one, grouped).reshape(b, c) for one in (mean, var))
    return mean, jnp.maximum(var, 0)  # rounding


def make_linear(config: LayerConfig, features: int, name: str, use_bias: bool = True) -> Linear:
    """A linear layer with the choices of the model."""
    return Linear(features, config.dtype, config.param_dtype, use_bias, name=name)


def make_conv(config: LayerConfig, features: int, name: str, **options: Any) -> Conv:
    """A convolution with the choices of the model; options are those of `Conv`."""
    train, dtype, param_dtype = config.train, config.dtype, config.param_dtype
    return Conv(features, dtype, param_dtype, train=train, name=name, **options)


def make_norm(
    config: LayerConfig,
    name: str,
    activation: Activation | None = None,
    groups: int | None = None,
    eps: float | None = None,
) -> GroupNorm:
    """A GroupNorm with the choices of the model; `groups` and `eps` replace the model's."""
    groups, eps = groups or config.groups, config.eps if eps is None else eps
    return GroupNorm(groups, eps, config.dtype, config.param_dtype, activation, name=name)


def make_layer_norm(config: LayerConfig, name: str, eps: float = 1e-5) -> LayerNorm:
    """A LayerNorm with the dtypes of the model."""
    return LayerNorm(eps, config.dtype, config.param_dtype, name=name)
