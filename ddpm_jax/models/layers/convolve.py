"""Convolution as arithmetic: channels last, kernels (height, width, in, out), no parameters.

Two forms besides the plain one, for speed. A 3x3 kernel k over a picture doubled by nearest
neighbour sees each pixel twice or once, so every output of even row reads, along rows,

    (1)  k_0 x_{i-1} + (k_1 + k_2) x_i        and of odd row    (k_0 + k_1) x_i + k_2 x_{i+1}

and likewise along columns: four 2x2 convolutions at the small size, 16 products a pixel for 36.
Where there are few pixels in a batch, one dot over the gathered windows (im2col). And in pictures
of at most 2x2, where every output sees every input, one dot with the matrix

    (2)  M[(i, j, in), (a, b, out)] = k[i - stride a + top, j - stride b + left, in, out]

which is a thirtieth of the time that XLA's convolution takes there on a CPU.

On a CPU, convolutions of stride 1 make one row more than is wanted, which is cut off: from jaxlib
0.8 on, XLA leaves to YNNPACK what makes no more rows than the picture has, and to Eigen the rest,
which is the faster one (jaxlib 0.10.2, two cores). In training there, large batches are convolved
a few pictures at a time. The gradient of the kernel is then a sum of as many convolutions; as one,
over 16 pictures of 32x32 with 128 channels, XLA takes three times as long.

Reference: (1) Shi et al. 2016, Is the deconvolution layer the same as a convolutional layer?,
arXiv:1609.07009.
"""

import math
from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

Image = Float[Array, "b h w c"]
Output = Float[Array, "b h2 w2 c2"]
Kernel = Float[Array, "kh kw c c2"]
Padding = tuple[tuple[int, int], tuple[int, int]]
"""Zeros before and after the rows, and the columns."""

LAYOUT = ("NHWC", "HWIO", "NHWC")

FEW = 64
"""Output pixels in a batch up to which im2col is used: a convolution's set-up costs more there."""

SPLIT = 2048
"""Pixels that a convolution is cut into, in training on a CPU."""
MOST = 16
"""Parts that it is cut into at most: each one is compiled."""

TINY = 4
"""Pixels of a picture up to which equation (2) is used."""


def convolve(
    x: Image, kernel: Kernel, stride: int, padding: Padding, split: bool = False
) -> Output:
    """The plain convolution, in x's dtype; `split`: a few pictures at a time."""
    kernel = kernel.astype(x.dtype)
    if kernel.shape[:2] == (1, 1):
        return dot(x[:, ::stride, ::stride], kernel[0, 0])
    if x.shape[1] * x.shape[2] <= TINY:
        return _dense(x, kernel, stride, padding)
    if stride == 1 and math.prod(x.shape[:3]) <= FEW:
        return dot(windows(x, kernel.shape[:2], padding), kernel.reshape(-1, kernel.shape[-1]))
    count = len(x)
    if split and math.prod(x.shape[:3]) > 2 * SPLIT:
        count = max(SPLIT // math.prod(x.shape[1:3]), -(-count // MOST), 1)
    taller = stride == 1 and x.dtype == jnp.float32 and jax.default_backend() == "cpu"
    conv = _by_one_row_more if taller else _by_xla
    parts = [conv(x[i : i + count], kernel, stride, padding) for i in range(0, len(x), count)]
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts)


def _by_xla(x: Image, kernel: Kernel, stride: int, padding: Padding) -> Output:
    """The convolution as XLA has it."""
    strides = (stride, stride)
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=LAYOUT)


@partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def _by_one_row_more(x: Image, kernel: Kernel, stride: int, padding: Padding) -> Output:
    """The convolution at stride 1, cut out of one with more rows than x."""
    (top, bottom), columns = padding
    rows = x.shape[1] + top + bottom - kernel.shape[0] + 1
    more = max(x.shape[1] + 1 - rows, 0)
    return _by_xla(x, kernel, stride, ((top, bottom + more), columns))[:, :rows]


@_by_one_row_more.defjvp
def _by_one_row_more_jvp(
    stride: int, padding: Padding, primals: tuple[Image, Kernel], tangents: tuple[Image, Kernel]
) -> tuple[Output, Output]:
    """The plain derivatives: those of the taller picture take five times as long."""
    (x, kernel), (dx, dkernel) = primals, tangents
    change = _by_xla(dx, kernel, stride, padding) + _by_xla(x, dkernel, stride, padding)
    return _by_one_row_more(x, kernel, stride, padding), change


def convolve_doubled(x: Image, kernel: Kernel, split: bool = False) -> Output:
    """A 3x3 convolution, padding 1, of the picture at twice its size: equation (1)."""
    b, h, w, _ = x.shape
    if 4 * b * h * w <= FEW:
        return convolve(double(x), kernel, 1, ((1, 1), (1, 1)), split)
    kernel = kernel.astype(jnp.float32)  # the sums are rounded once, to x's dtype
    rows = [
        jnp.stack(
            [
                convolve(x, part, 1, (row_edge, column_edge), split)
                for part, column_edge in _halves(row, axis=1)
            ],
            axis=3,
        )
        for row, row_edge in _halves(kernel, axis=0)
    ]
    return jnp.stack(rows, axis=2).reshape(b, 2 * h, 2 * w, -1)


def _halves(kernel: Kernel, axis: int) -> Iterator[tuple[Kernel, tuple[int, int]]]:
    """The two kernels of equation (1) along an axis, even outputs' first, with their padding."""
    first, middle, last = jnp.split(kernel, 3, axis)
    yield jnp.concatenate([first, middle + last], axis), (1, 0)
    yield jnp.concatenate([first + middle, last], axis), (0, 1)


def _dense(x: Image, kernel: Kernel, stride: int, padding: Padding) -> Output:
    """The convolution by equation (2)."""
    sides = x.shape[1:3]
    zeros = [(side, side) for side in sides]  # taps beside the kernel
    taps = jnp.pad(kernel, (*zeros, (0, 0), (0, 0)))
    # How far an output's window reaches into the picture: its tap on the first pixel.
    rows, columns = (
        [
            side + before - stride * out
            for out in range((side + before + after - size) // stride + 1)
        ]
        for side, size, (before, after) in zip(sides, kernel.shape[:2], padding, strict=True)
    )
    matrix = jnp.stack(
        [taps[i : i + sides[0], j : j + sides[1]] for i in rows for j in columns], axis=3
    )
    flat = x.reshape(x.shape[0], -1)
    y = flat @ matrix.reshape(flat.shape[1], -1)
    return y.reshape(x.shape[0], len(rows), len(columns), -1)


def windows(x: Image, size: tuple[int, ...], padding: Padding) -> Output:
    """Every pixel's window at stride 1, its channels in the order of a kernel's rows."""
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    height, width = x.shape[1] - size[0] + 1, x.shape[2] - size[1] + 1
    shifted = [x[:, i : i + height, j : j + width] for i in range(size[0]) for j in range(size[1])]
    return jnp.concatenate(shifted, axis=-1)


def dot(x: Float[Array, "*batch c"], kernel: Float[Array, "c c2"]) -> Float[Array, "*batch c2"]:
    """A matrix product over the last axis, as one of two dimensions."""
    flat = x.reshape(-1, x.shape[-1]) @ kernel.astype(x.dtype)
    return flat.reshape(*x.shape[:-1], flat.shape[-1])


def double(x: Image) -> Output:
    """Each pixel becomes 2x2 (nearest neighbour)."""
    b, h, w, c = x.shape
    return jnp.broadcast_to(x[:, :, None, :, None], (b, h, 2, w, 2, c)).reshape(b, 2 * h, 2 * w, c)


def halve(x: Image) -> Output:
    """Each 2x2 becomes its mean."""
    b, h, w, c = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2, c).mean((2, 4))
