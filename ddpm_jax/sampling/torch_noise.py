r"""The random numbers of PyTorch's generator on a CPU, in NumPy.

The generator is the Mersenne Twister of 32 bits (Matsumoto & Nishimura 1998), which a seed fills as
NumPy's `RandomState` does. Two uniform numbers u and w become two normal ones (Box & Muller 1958):

    (1)  sqrt(-2 log(1 - u)) cos(2 pi w),  sqrt(-2 log(1 - u)) sin(2 pi w)

Under 16 numbers, they are pairs, in double precision from 53 bits. From 16 on, they are blocks of
16 in single precision from 24 bits: 8 u, then 8 w, become 8 cosines, then 8 sines. If they do not
fill the last block, the last 16 are drawn once more.
"""

from collections.abc import Callable
from math import prod

import numpy as np
from jaxtyping import Float

from ddpm_jax._typing import is_whole

BLOCK = 16


def torch_noise(seed: int, shape: tuple[int, int, int, int]) -> Float[np.ndarray, "b h w c"]:
    """The noise of `torch.randn((B, C, H, W), generator=torch.Generator().manual_seed(seed))`, on a
    CPU in float32, channels last.

    With it a run starts where a run of PyTorch started: `pipe(key, x_T=dj.torch_noise(0, shape) *
    table.init_scale)`.

    Args:
        seed: a whole number. As in torch, only its last 32 bits count.
        shape: (B, H, W, C).

    Returns:
        (B, H, W, C) float32. Below 16 numbers in all they equal torch's. From 16 on they differ by
        at most 3 units in the last place from torch 2.13 on an x86 CPU with AVX2 (10 million
        numbers, 98 % within one unit), whose logarithm and cosine are approximations of its own.

    Raises:
        ValueError: the seed is not a whole number of 64 bits, or the shape not four whole numbers
            above 0.

    >>> import ddpm_jax as dj
    >>> dj.torch_noise(0, (1, 1, 2, 1)).ravel().round(4).tolist()
    [1.541, -0.2934]
    """
    if not is_whole(seed) or not -(2**63) <= seed < 2**64:
        raise ValueError(f"seed must be a whole number in -2**63..2**64-1, got {seed!r}")
    if len(shape) != 4 or not all(is_whole(side) and side > 0 for side in shape):
        raise ValueError(f"shape must be (B, H, W, C), got {shape}")
    b, h, w, c = shape
    random, count = np.random.RandomState(int(seed) % 2**32), prod(map(int, shape))

    def bits(words: int) -> np.ndarray:
        return random.randint(0, 2**32, words, dtype=np.uint32)

    numbers = _pairs(bits, count) if count < BLOCK else _blocks(bits, count)
    return np.moveaxis(numbers.reshape(b, c, h, w), 1, -1)


Bits = Callable[[int], np.ndarray]
"""The next words of 32 bits."""


def _pairs(bits: Bits, count: int) -> Float[np.ndarray, "n"]:
    """Equation (1) for few numbers; w is drawn before u."""
    high, low = bits(4 * -(-count // 2)).astype(np.uint64).reshape(-1, 2).T
    w, u = ((high << 32 | low) % 2**53 * 2.0**-53).reshape(-1, 2).T
    radius, angle = np.sqrt(-2 * np.log1p(-u)), 2 * np.pi * w
    both = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return both.ravel()[:count].astype(np.float32)


def _blocks(bits: Bits, count: int) -> Float[np.ndarray, "n"]:
    """Equation (1) for many numbers."""
    drawn, rest = bits(count), count % BLOCK
    numbers = np.empty(count, np.float32)
    numbers[: count - rest] = _normal(drawn[: count - rest])
    if rest:
        numbers[-BLOCK:] = _normal(bits(BLOCK))
    return numbers


def _normal(drawn: np.ndarray) -> Float[np.ndarray, "n"]:
    """Whole blocks of words as normal numbers; each operation is rounded to float32, as torch's."""
    uniform = (drawn % 2**24).astype(np.float32) * np.float32(2**-24)
    u, w = uniform.reshape(-1, 2, BLOCK // 2).swapaxes(0, 1)
    # In float64, and then rounded: NumPy's own float32 functions depend on the CPU.
    log = np.log((1 - u).astype(np.float64)).astype(np.float32)
    radius, angle = np.sqrt(-2 * log), (np.float32(2 * np.pi) * w).astype(np.float64)
    sides = [radius * side(angle).astype(np.float32) for side in (np.cos, np.sin)]
    return np.stack(sides, axis=1).ravel()
