"""The plain arithmetic of image layers: channels last, no parameters."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

Image = Float[Array, "b h w c"]
Output = Float[Array, "b h2 w2 c2"]
Kernel = Float[Array, "kh kw c c2"]
Padding = tuple[tuple[int, int], tuple[int, int]]
"""Zeros before and after the rows, and the columns."""

LAYOUT = ("NHWC", "HWIO", "NHWC")


def by_xla(x: Image, kernel: Kernel, stride: int, padding: Padding) -> Output:
    """The convolution by XLA."""
    strides = (stride, stride)
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=LAYOUT)


def dot(x: Float[Array, "*batch c"], kernel: Float[Array, "c c2"]) -> Float[Array, "*batch c2"]:
    """A matrix product over the last axis, computed as one 2D product."""
    flat = x.reshape(-1, x.shape[-1]) @ kernel.astype(x.dtype)
    return flat.reshape(*x.shape[:-1], flat.shape[-1])


def double(x: Image) -> Output:
    """Each pixel becomes 2x2 pixels (nearest neighbor)."""
    b, h, w, c = x.shape
    return jnp.broadcast_to(x[:, :, None, :, None], (b, h, 2, w, 2, c)).reshape(b, 2 * h, 2 * w, c)


def halve(x: Image) -> Output:
    """Each 2x2 becomes its mean."""
    b, h, w, c = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2, c).mean((2, 4))
