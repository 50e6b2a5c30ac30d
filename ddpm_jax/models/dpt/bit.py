"""The convolutional part of DPT-hybrid: BiT, a ResNet of three stages.

    (1)  k <- (k - mean) / sqrt(var + 1e-8)              each kernel, over all but its last axis
    (2)  h = relu(norm1(conv1(x)))                       1x1
         h = relu(norm2(conv2(h)))                       3x3, with the stride
    (3)  y = relu(norm3(conv3(h)) + norm(conv(x)))       1x1; x itself but in a stage's first layer

The stem halves the image twice, and each stage but the first halves it again. Padding is
TensorFlow's "same": an odd row or column more is after the image.

Reference: Kolesnikov et al. 2020, arXiv:1912.11370; (1) Qiao et al. 2019, arXiv:1903.10520.
"""

import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

from ddpm_jax.models.layers.basic import make_norm, uniform
from ddpm_jax.models.layers.config import LayerConfig
from ddpm_jax.models.layers.convolve import convolve
from ddpm_jax.models.layers.plain import Image, Output

EPS = 1e-8


class Backbone(nn.Module):
    """Holds the network, as torch does."""

    bit: "BiT"

    def __call__(self, x: Image) -> list[Float[Array, "..."]]:
        """The images after each stage."""
        return self.bit(x)


class BiT(nn.Module):
    """The stem and the stages."""

    config: LayerConfig
    stem: int
    """Channels of the stem."""
    widths: tuple[int, ...]
    """Channels of each stage."""
    depths: tuple[int, ...]
    """Layers of each stage."""

    @nn.compact
    def __call__(self, x: Image) -> list[Float[Array, "..."]]:
        """The images after each stage."""
        x = Stem(self.config, self.stem, name="embedder")(x)
        return Stages(self.config, self.widths, self.depths, name="encoder")(x)


class Stem(nn.Module):
    """Halves an image twice."""

    config: LayerConfig
    features: int

    @nn.compact
    def __call__(self, x: Image) -> Output:
        """Maps images."""
        h = Conv(self.config.exact, self.features, 7, 2, name="convolution")(x)
        h = make_norm(self.config, "norm", nn.relu)(h)
        return nn.max_pool(h, (3, 3), (2, 2), "SAME")


class Stages(nn.Module):
    """All layers."""

    config: LayerConfig
    widths: tuple[int, ...]
    depths: tuple[int, ...]

    @nn.compact
    def __call__(self, x: Image) -> list[Float[Array, "..."]]:
        """The images after each stage."""
        found = []
        for i, (width, depth) in enumerate(zip(self.widths, self.depths, strict=True)):
            x = Stage(self.config, width, depth, 2 if i else 1, name=f"stages.{i}")(x)
            found.append(x)
        return found


class Stage(nn.Module):
    """Layers of one size."""

    config: LayerConfig
    features: int
    depth: int
    stride: int

    @nn.compact
    def __call__(self, x: Image) -> Output:
        """Maps images."""
        for i in range(self.depth):
            stride = 1 if i else self.stride
            x = Bottleneck(self.config, self.features, stride, i == 0, name=f"layers.{i}")(x)
        return x


class Bottleneck(nn.Module):
    """Equations (2) and (3)."""

    config: LayerConfig
    features: int
    stride: int
    first: bool

    @nn.compact
    def __call__(self, x: Image) -> Output:
        """Maps images."""
        config, inner = self.config, self.features // 4
        h = Conv(config, inner, 1, name="conv1")(x)
        h = make_norm(config, "norm1", nn.relu)(h)
        h = Conv(config, inner, 3, self.stride, name="conv2")(h)
        h = make_norm(config, "norm2", nn.relu)(h)
        h = Conv(config, self.features, 1, name="conv3")(h)
        h = make_norm(config, "norm3")(h)
        if self.first:
            x = Shortcut(config, self.features, self.stride, name="downsample")(x)
        return nn.relu(x + h)


class Shortcut(nn.Module):
    """The x of (3) in the first layer of a stage."""

    config: LayerConfig
    features: int
    stride: int

    @nn.compact
    def __call__(self, x: Image) -> Output:
        """Maps images."""
        h = Conv(self.config, self.features, 1, self.stride, name="conv")(x)
        return make_norm(self.config, "norm")(h)


class Conv(nn.Module):
    """A convolution without bias, whose kernel is that of (1)."""

    config: LayerConfig
    features: int
    size: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: Image) -> Output:
        """Maps images."""
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", uniform, shape, self.config.param_dtype)
        kernel = kernel.astype(jnp.promote_types(kernel.dtype, jnp.float32))
        centered = kernel - kernel.mean((0, 1, 2), keepdims=True)
        var = jnp.square(centered).mean((0, 1, 2), keepdims=True)
        rows, columns = (
            (int(before), int(after))  # jax 0.7.2 has NumPy's integers here
            for before, after in lax.padtype_to_pads(
                x.shape[1:3], shape[:2], (self.stride, self.stride), "SAME"
            )
        )
        x = x.astype(self.config.dtype)
        return convolve(x, centered * lax.rsqrt(var + EPS), self.stride, (rows, columns))
