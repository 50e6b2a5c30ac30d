"""Convolution as arithmetic: channels last, kernels (height, width, in, out), no parameters.

A 3x3 kernel k over an image doubled by nearest-neighbor upsampling reads each pixel once or twice.
So along rows the outputs are

    (1)  even rows   k_0 x_{i-1} + (k_1 + k_2) x_i
         odd rows    (k_0 + k_1) x_i + k_2 x_{i+1}

and the same along columns. This is four 2x2 convolutions at the small size, with 16 products per
pixel instead of 36. `ddpm_jax.models.layers.cpu` has programs for convolutions that XLA computes
slowly on a CPU.

Reference: (1) Shi et al. 2016, Is the deconvolution layer the same as a convolutional layer?,
arXiv:1609.07009.
"""

from collections.abc import Iterator

import jax.numpy as jnp

from ddpm_jax.models.layers import cpu, target
from ddpm_jax.models.layers.plain import Image, Kernel, Output, Padding, by_xla, dot, double


def convolve(
    x: Image, kernel: Kernel, stride: int, padding: Padding, train: bool = False
) -> Output:
    """The convolution, in x's dtype; `train`: the network is called to train."""
    kernel = kernel.astype(x.dtype)
    if kernel.shape[:2] == (1, 1):
        return dot(x[:, ::stride, ::stride], kernel[0, 0])
    own = cpu.program(x, stride, train) if target.is_cpu() else None
    return (own or by_xla)(x, kernel, stride, padding)


def convolve_doubled(x: Image, kernel: Kernel, train: bool = False) -> Output:
    """A 3x3 convolution, padding 1, of the image at twice its size: equation (1)."""
    b, h, w, _ = x.shape
    if cpu.is_few(b, 2 * h, 2 * w):
        return convolve(double(x), kernel, 1, ((1, 1), (1, 1)), train)
    kernel = kernel.astype(
        jnp.promote_types(kernel.dtype, jnp.float32)
    )  # the sums are rounded once, to x's dtype
    rows = [
        jnp.stack(
            [
                convolve(x, part, 1, (row_edge, column_edge), train)
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
