"""From features at four sizes to one image: the neck and the head of DPT-hybrid.

A transformer's tokens become an image again, whose tokens have seen the first one, s:

    (1)  x_i = activation(linear(t_i, s))

Four images f_1 (the largest) to f_4 of one width are joined from the smallest on, h being nothing
at first, by

    (2)  h <- project(double(unit2(h + unit1(f))))       unit(x) = x + conv(relu(conv(relu(x))))

where the first sum is f_4 itself. The last h is 1/2 of the input's size; the head doubles it.

`double` is bilinear with the corners of both images at the same place: pixel i of 2n is at
i (n - 1) / (2n - 1). Along each axis that is a matrix.

Reference: Ranftl et al. 2021, arXiv:2103.13413, section 3.
"""

import math

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from ddpm_jax.models.layers.attention import Sequence
from ddpm_jax.models.layers.basic import make_conv, make_linear
from ddpm_jax.models.layers.config import LayerConfig
from ddpm_jax.models.layers.plain import Image, Output

HEAD_WIDTH = 32


class Neck(nn.Module):
    """Equations (1) and (2)."""

    config: LayerConfig
    widths: tuple[int, ...]
    """Channels of the images that tokens become."""
    features: int
    """Channels of the images that are joined."""

    @nn.compact
    def __call__(self, maps: list[Float[Array, "..."]], states: list[Sequence]) -> Output:
        """Joins images and sequences, the largest first."""
        reassembled = Reassemble(self.config, self.widths, name="reassemble_stage")(states)
        joined = [
            make_conv(self.config, self.features, f"convs.{i}", use_bias=False)(x)
            for i, x in enumerate([*maps, *reassembled])
        ]
        return Fusion(self.config, name="fusion_stage")(joined)


class Reassemble(nn.Module):
    """Equation (1), for features 2 and 3 of 0 to 3; the others are images already."""

    config: LayerConfig
    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, states: list[Sequence]) -> list[Float[Array, "..."]]:
        """Images, the last one at half the size."""
        found = []
        for i, (x, width) in enumerate(zip(states, self.widths, strict=True), start=2):
            b, n, c = x.shape
            side = math.isqrt(n - 1)
            first = jnp.broadcast_to(x[:, :1], (b, n - 1, c))
            readout = make_linear(self.config, c, f"readout_projects.{i}.0")
            h = self.config.activation(readout(jnp.concatenate([x[:, 1:], first], axis=-1)))
            layer = ReassembleLayer(self.config, width, 2 if i == 3 else 1, name=f"layers.{i}")
            found.append(layer(h.reshape(b, side, side, c)))
        return found


class ReassembleLayer(nn.Module):
    """Another width, and another size with a stride above 1."""

    config: LayerConfig
    width: int
    stride: int

    @nn.compact
    def __call__(self, x: Image) -> Output:
        """Maps images."""
        x = make_conv(self.config, self.width, "projection", size=1)(x)
        if self.stride == 1:
            return x
        return make_conv(self.config, self.width, "resize", stride=self.stride)(x)


class Fusion(nn.Module):
    """Equation (2) for each image."""

    config: LayerConfig

    @nn.compact
    def __call__(self, maps: list[Float[Array, "..."]]) -> Output:
        """Joins images, the largest first; each has twice the size of the next one."""
        h = None
        for i, x in enumerate(reversed(maps)):
            h = FusionLayer(self.config, name=f"layers.{i}")(h, x)
        assert h is not None
        return h


class FusionLayer(nn.Module):
    """Equation (2)."""

    config: LayerConfig

    @nn.compact
    def __call__(self, h: Image | None, x: Image) -> Output:
        """Joins x and h, and doubles the sum."""
        added = ResidualUnit(self.config, name="residual_layer1")(x)
        h = x if h is None else h + added  # torch has unit1 in the first layer too, unused
        h = double(ResidualUnit(self.config, name="residual_layer2")(h))
        return make_conv(self.config, h.shape[-1], "projection", size=1)(h)


class ResidualUnit(nn.Module):
    """The unit of (2)."""

    config: LayerConfig

    @nn.compact
    def __call__(self, x: Image) -> Image:
        """Maps images."""
        h = make_conv(self.config, x.shape[-1], "convolution1")(nn.relu(x))
        return x + make_conv(self.config, x.shape[-1], "convolution2")(nn.relu(h))


class Head(nn.Module):
    """From features to depth, at twice their size."""

    config: LayerConfig

    @nn.compact
    def __call__(self, x: Image) -> Output:
        """Maps images to images of one channel, not negative."""
        exact = self.config.exact
        h = double(make_conv(self.config, x.shape[-1] // 2, "head.0")(x))
        h = nn.relu(make_conv(exact, HEAD_WIDTH, "head.2")(h))
        return nn.relu(make_conv(exact, 1, "head.4", size=1)(h))


def double(x: Image) -> Output:
    """The image at twice its size, bilinear, corner to corner."""
    rows, columns = (_stretch(side).astype(x.dtype) for side in x.shape[1:3])
    return jnp.einsum("ih,jw,bhwc->bijc", rows, columns, x)


def _stretch(n: int) -> Float[np.ndarray, "m n"]:
    """The matrix of an axis."""
    position = np.linspace(0, n - 1, 2 * n)
    return np.maximum(1 - np.abs(position[:, None] - np.arange(n)[None]), 0)
