"""Noise schedules from their papers' formulas, one number at a time, for comparison."""

import functools
import math
from itertools import pairwise

import numpy as np


def _cosine(t: float) -> float:
    """Nichol and Dhariwal 2021 (arXiv 2102.09672), equation 17, s = 0.008."""
    return math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2


def _laplace(t: float) -> float:
    """diffusers' `laplace`: sqrt(sigmoid(lambda)), lambda a Laplace quantile at scale 1/2."""
    side = 1.0 if t <= 0.5 else -1.0
    log_snr = -0.5 * side * math.log(1 - 2 * abs(0.5 - t) + 1e-6)
    return math.sqrt(1 / (1 + math.exp(-log_snr)))


def _from_curve(curve, length: int) -> tuple[float, ...]:
    points = [curve(i / length) for i in range(length + 1)]
    return tuple(min(1 - after / before, 0.999) for before, after in pairwise(points))


def betas(
    kind: str, length: int = 1000, start: float = 1e-4, end: float = 0.02
) -> tuple[float, ...]:
    ramp = [i / (length - 1) for i in range(length)]
    match kind:
        case "linear":
            return tuple(start + (end - start) * u for u in ramp)
        case "scaled_linear":
            a, b = math.sqrt(start), math.sqrt(end)
            return tuple((a + (b - a) * u) ** 2 for u in ramp)
        case "sigmoid":
            return tuple(start + (end - start) / (1 + math.exp(6 - 12 * u)) for u in ramp)
        case "squaredcos_cap_v2":
            return _from_curve(_cosine, length)
        case "laplace":
            return _from_curve(_laplace, length)
    raise AssertionError(kind)


@functools.cache
def alpha_bar(values: tuple[float, ...]) -> np.ndarray:
    """Cumulative products, by way of sums of logarithms."""
    logs = [math.log1p(-beta) for beta in values]
    found = np.array([math.exp(math.fsum(logs[: i + 1])) for i in range(len(logs))])
    found.flags.writeable = False  # all callers share it
    return found


def zero_snr(bar: np.ndarray) -> np.ndarray:
    """Lin et al. 2023 (arXiv 2305.08891), Algorithm 1: shift and scale sqrt(alpha_bar)."""
    root = np.sqrt(bar)
    return ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2


def positions(spacing: str, n: int, length: int = 1000) -> tuple[np.ndarray, int]:
    """Where Table 2 of arXiv 2305.08891 puts n steps, before any rounding, descending.

    `quadratic` is appendix D.2 of arXiv 2010.02502 as its code has it: (i sqrt(0.8 T) / (n - 1))^2.
    Returns (numerators, denominator).
    """
    last, up = max(n - 1, 1), np.arange(n)
    match spacing:
        case "leading":
            return up[::-1] * (length // n), 1
        case "linspace":
            return up[::-1] * (length - 1), last
        case "trailing":
            return (length - 1) * n - up * length, n
        case "quadratic":
            return up[::-1] ** 2 * 8 * length, 10 * last**2
    raise AssertionError(spacing)
