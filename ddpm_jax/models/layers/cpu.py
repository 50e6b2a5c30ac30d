"""Programs for convolutions on a CPU, where XLA's own are slow. The layers ask only on a CPU.

    (1)  dense      an image of at most 2x2: every output sees every input, so one dot with the
                    matrix M[(i, j, in), (a, b, out)] = k[i - stride a + top, j - stride b + left,
                    in, out]
    (2)  im2col     few output pixels: one dot over the gathered windows
    (3)  one row more   stride 1, float32: XLA of jaxlib 0.8 and later leaves to YNNPACK what makes
                    no more rows than the image has, and to Eigen the rest; so one row more is made,
                    and cut off
    (4)  in parts   in training: the gradient of the kernel is a sum over a few images at a time

Gains over XLA's plain convolution, plain time over the program's, by `python -m
benchmarks.convolutions` (two cores of an AMD EPYC, jaxlib 0.10.2, float32):

    dense           5.6 (batch 1, 256 channels), 11.5 (batch 128, 64 channels)
    im2col          1.00 (8x8x32), 1.18 (4x4x256)
    one row more    0.99 (batch 1), 0.95 (batch 16) at 32x32x128
    in parts        0.94 (16 of 32x32x128), 0.92 (64 of 16x16x64), the kernel's gradient

(3) and (4) were written on an Intel Xeon, where (3) made the CIFAR-10 network's sampling 5 to 20 %
faster and (4) the kernel's gradient three times as fast; on the AMD machine they cost a little.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from ddpm_jax._typing import Size
from ddpm_jax.models.layers import target
from ddpm_jax.models.layers.plain import Image, Kernel, Output, Padding, by_xla, dot

FEW = 64
"""Output pixels in a batch up to which im2col pays: a convolution's set-up costs more there."""
PART = 2048
"""Pixels in a part of a batch, in training: 8 images of 16x16."""
MOST = 16
"""Parts at most: each one is compiled."""
TINY = 4
"""Pixels of an image up to which (1) is used."""

Program: TypeAlias = Callable[[Image, Kernel, int, Padding], Output]


class CpuProgram(NamedTuple):
    """A program, and the convolutions that it is for."""

    applies: Callable[[Image, int, bool], bool]
    """Of the images, the stride, and whether the network is called to train."""
    run: Program


def program(x: Image, stride: int, train: bool) -> Program | None:
    """The first program for such a convolution; None: XLA's own."""
    return next((one.run for one in PROGRAMS if one.applies(x, stride, train)), None)


def is_few(b: Size, h: int, w: int) -> bool:
    """Whether (2) is used for so few output pixels, on a CPU."""
    few = isinstance(b, int) and b * h * w <= FEW  # an export may leave the batch size open
    return few and target.is_cpu()


def dense(x: Image, kernel: Kernel, stride: int, padding: Padding) -> Output:
    """The convolution by (1)."""
    sides = x.shape[1:3]
    zeros = [(side, side) for side in sides]  # taps outside the kernel
    taps = jnp.pad(kernel, (*zeros, (0, 0), (0, 0)))
    # How far an output's window reaches into the image: its tap on the first pixel.
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


def im2col(x: Image, kernel: Kernel, stride: int, padding: Padding) -> Output:
    """The convolution at stride 1 by (2)."""
    del stride
    rows = kernel.reshape(-1, kernel.shape[-1])
    return dot(windows(x, kernel.shape[:2], padding), rows)


def windows(x: Image, size: tuple[int, ...], padding: Padding) -> Output:
    """Every pixel's window at stride 1, its channels in the order of a kernel's rows."""
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    height, width = x.shape[1] - size[0] + 1, x.shape[2] - size[1] + 1
    shifted = [x[:, i : i + height, j : j + width] for i in range(size[0]) for j in range(size[1])]
    return jnp.concatenate(shifted, axis=-1)


@partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def one_row_more(x: Image, kernel: Kernel, stride: int, padding: Padding) -> Output:
    """The convolution at stride 1 by (3)."""
    (top, bottom), columns = padding
    rows = x.shape[1] + top + bottom - kernel.shape[0] + 1
    more = max(x.shape[1] + 1 - rows, 0)
    return by_xla(x, kernel, stride, ((top, bottom + more), columns))[:, :rows]


@one_row_more.defjvp
def _one_row_more_jvp(
    stride: int,
    padding: Padding,
    primals: tuple[Image, Kernel],
    tangents: tuple[Image, Kernel],
) -> tuple[Output, Output]:
    """The plain derivatives: those of the taller image take five times as long."""
    (x, kernel), (dx, dkernel) = primals, tangents
    change = by_xla(dx, kernel, stride, padding)
    change = change + by_xla(x, dkernel, stride, padding)
    return one_row_more(x, kernel, stride, padding), change


def in_parts(x: Image, kernel: Kernel, stride: int, padding: Padding) -> Output:
    """The convolution by (4), each part by the program that it would have alone."""
    count = max(PART // math.prod(x.shape[1:3]), -(-len(x) // MOST), 1)
    run = one_row_more if _is_taller(x, stride, False) else by_xla
    parts = [run(x[i : i + count], kernel, stride, padding) for i in range(0, len(x), count)]
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts)


def _is_large(x: Image, stride: int, train: bool) -> bool:
    # On several devices the batch is cut already.
    return train and jax.device_count() == 1 and math.prod(x.shape[:3]) > 2 * PART


def _is_taller(x: Image, stride: int, train: bool) -> bool:
    return stride == 1 and x.dtype == jnp.float32


_once = partial(jax.jit, static_argnums=(2, 3), inline=True)  # traced once a shape

PROGRAMS = (
    CpuProgram(lambda x, stride, train: x.shape[1] * x.shape[2] <= TINY, _once(dense)),
    CpuProgram(lambda x, stride, train: stride == 1 and is_few(*x.shape[:3]), _once(im2col)),
    CpuProgram(_is_large, _once(in_parts)),
    CpuProgram(_is_taller, _once(one_row_more)),
)
