"""Convolution, linear layer, GroupNorm and 2x resampling, channels last.

GroupNorm, the activation after it and the FiLM between them are one affine map per image and channel:

    (1)  gain = scale / sqrt(var + eps)     offset = bias - mean * gain
    (2)  gain <- gain * (1 + film_scale)    offset <- offset * (1 + film_scale) + film_shift
    (3)  y = activation(x * gain + offset)

mean and var are those of the channel's group, in float32, in two passes: the one-pass form E[x^2] - E[x]^2 cancels.

Reference: Wu & He 2018, Group Normalization, arXiv:1803.08494; Perez et al. 2017, FiLM, arXiv:1709.07871.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float
from numpy import dtype as Dtype

from ddpm_jax.models.style import Activation, Style

Image = Float[Array, "b h w c"]
Padding = tuple[tuple[int, int], tuple[int, int]]

SMALL = 64
"""Pixels in a batch up to which a 3x3 convolution is one im2col dot: the convolution's set-up costs more there."""

uniform_fan_in = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
"""U(-1/sqrt(fan_in), 1/sqrt(fan_in)), the initial weights that torch gives linear and convolution layers."""


def _bias_init(fan_in: int) -> nn.initializers.Initializer:
    """The same interval for the bias, which has no fan-in of its own."""
    bound = 1 / np.sqrt(fan_in)

    def init(key: Any, shape: Any, dtype: Any = jnp.float32) -> Array:
        return nn.initializers.uniform(2 * bound)(key, shape, dtype) - jnp.asarray(bound, dtype)

    return init


class Linear(nn.Module):
    """x @ kernel + bias over the last axis; kernel (in, features)."""

    features: int
    dtype: Dtype
    param_dtype: Dtype

    @nn.compact
    def __call__(self, x: Float[Array, "*batch c"]) -> Float[Array, "*batch d"]:
        fan_in = x.shape[-1]
        kernel = self.param("kernel", uniform_fan_in, (fan_in, self.features), self.param_dtype)
        bias = self.param("bias", _bias_init(fan_in), (self.features,), self.param_dtype)
        return _affine(x.astype(self.dtype), kernel, bias)


class Conv(nn.Module):
    """Convolution with bias; kernel (size, size, in, features), zero padding of `size // 2` unless given."""

    features: int
    dtype: Dtype
    param_dtype: Dtype
    size: int = 3
    stride: int = 1
    padding: Padding | None = None

    @nn.compact
    def __call__(self, x: Image) -> Image:
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", uniform_fan_in, shape, self.param_dtype)
        bias = self.param("bias", _bias_init(int(np.prod(shape[:3]))), shape[3:], self.param_dtype)
        x = x.astype(self.dtype)
        if self.size == 1:
            return _affine(x, kernel[0, 0], bias)
        half = self.size // 2
        padding = self.padding or ((half, half), (half, half))
        if self.stride == 1 and np.prod(x.shape[:3]) <= SMALL:
            return _affine(patches(x, self.size, padding), kernel.reshape(-1, self.features), bias)
        y = lax.conv_general_dilated(
            x,
            kernel.astype(x.dtype),
            (self.stride, self.stride),
            padding,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return y + _per_channel(bias, y)


def patches(x: Image, size: int, padding: Padding) -> Float[Array, "b h2 w2 k"]:
    """im2col at stride 1: channels are (row, column, channel) of the window, the order of a HWIO kernel."""
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    height, width = x.shape[1] - size + 1, x.shape[2] - size + 1
    windows = [x[:, i : i + height, j : j + width] for i in range(size) for j in range(size)]
    return jnp.concatenate(windows, axis=-1)


def _affine(
    x: Float[Array, "*batch c"], kernel: Float[Array, "c d"], bias: Float[Array, " d"]
) -> Float[Array, "*batch d"]:
    flat = x.reshape(-1, x.shape[-1]) @ kernel.astype(x.dtype)
    y = flat.reshape(*x.shape[:-1], flat.shape[-1])
    return y + _per_channel(bias, y)


def _per_channel(values: Float[Array, " c"], like: Float[Array, "*batch c"]) -> Array:
    """Values for the last axis of `like`, in its rank and dtype."""
    return values.astype(like.dtype).reshape((1,) * (like.ndim - 1) + (-1,))


class GroupNorm(nn.Module):
    """Equations (1) to (3); statistics, affine and activation in float32, the result in `dtype`."""

    groups: int
    eps: float
    dtype: Dtype
    param_dtype: Dtype

    @nn.compact
    def __call__(
        self,
        x: Image,
        activation: Activation | None = None,
        film: tuple[Float[Array, "b c"], Float[Array, "b c"]] | None = None,
    ) -> Image:
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,), self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, (channels,), self.param_dtype)
        x = x.astype(jnp.float32)
        mean, var = moments(x, self.groups)
        gain = scale.astype(jnp.float32)[None] * lax.rsqrt(var + self.eps)
        offset = bias.astype(jnp.float32)[None] - mean * gain
        if film is not None:
            film_scale, film_shift = (value.astype(jnp.float32) for value in film)
            gain = gain * (1 + film_scale)
            offset = offset * (1 + film_scale) + film_shift
        y = x * gain[:, None, None] + offset[:, None, None]
        return (y if activation is None else activation(y)).astype(self.dtype)


def moments(x: Image, groups: int) -> tuple[Float[Array, "b c"], Float[Array, "b c"]]:
    """Mean and biased variance of each channel's group."""
    count = x.shape[1] * x.shape[2] * x.shape[3] // groups

    def over_group(values: Image) -> Float[Array, "b c"]:
        sums = values.sum((1, 2)).reshape(values.shape[0], groups, -1).sum(-1)
        return jnp.repeat(sums / count, values.shape[3] // groups, axis=-1)

    mean = over_group(x)
    return mean, over_group(jnp.square(x - mean[:, None, None]))


def make_conv(style: Style, features: int, name: str, **options: Any) -> Conv:
    return Conv(features, style.dtype, style.param_dtype, name=name, **options)


def make_linear(style: Style, features: int, name: str) -> Linear:
    return Linear(features, style.dtype, style.param_dtype, name=name)


def make_norm(style: Style, name: str, groups: int | None = None) -> GroupNorm:
    return GroupNorm(groups or style.groups, style.eps, style.dtype, style.param_dtype, name=name)


def upsample(x: Image) -> Image:
    """Each pixel becomes 2x2 (nearest neighbour)."""
    b, h, w, c = x.shape
    return jnp.broadcast_to(x[:, :, None, :, None], (b, h, 2, w, 2, c)).reshape(b, 2 * h, 2 * w, c)


def downsample(x: Image) -> Image:
    """Each 2x2 becomes its mean."""
    b, h, w, c = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2, c).mean((2, 4))
