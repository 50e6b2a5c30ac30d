"""Tables evaluated in NumPy float64 by their definition, without `ddpm_jax.sampling`.

output = network(in_scale_i * r_0)
x0     = refine(to_x0_i . (r_0, output))
r      <- mix_i @ (r_0, ..., r_{m-1}, output[, x0])
r_0    <- r_0 + std * z          std = noise_scale_i, or noise_scale_i * exp(lerp(log_var_i) / 2)
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Network = Callable[[np.ndarray, int], np.ndarray]
"""(scaled sample, index of the evaluation) -> output, both (B, H, W, C)."""


def refined(refine: Any, x0: np.ndarray) -> np.ndarray:
    """Clip to +-limit; or Saharia et al. (arXiv 2205.11487), section 2.3: dynamic thresholding."""
    if type(refine).__name__ == "Clip":
        limit = float(refine.limit)
        return np.clip(x0, -limit, limit)
    flat = np.abs(x0).reshape(len(x0), -1)
    quantile = np.quantile(flat, float(refine.ratio), axis=1)
    s = np.minimum(np.maximum(quantile, 1.0), float(refine.max_value))[:, None, None, None]
    return np.clip(x0, -s, s) / s


def std(table: Any, i: int, extra: np.ndarray | None) -> np.ndarray | float:
    """The standard deviation of row i's noise."""
    scale = 0.0 if table.noise_scale is None else float(table.noise_scale[i])
    if table.log_var is None or scale == 0.0:
        return scale
    assert extra is not None
    low, high = (float(bound) for bound in table.log_var[i])
    return scale * np.exp((low + (extra + 1) / 2 * (high - low)) / 2)


def propagate(
    table: Any, network: Network, x: np.ndarray, noise: Sequence[np.ndarray] | None = None
) -> list[np.ndarray]:
    """Register 0 after each row."""
    m, channels = table.mix.shape[1], x.shape[-1]
    registers = [x] + [np.zeros_like(x)] * (m - 1)
    samples = []
    for i, mix in enumerate(np.asarray(table.mix, np.float64)):
        answer = network(float(table.in_scale[i]) * registers[0], i)
        output = answer[..., :channels]
        extra = answer[..., channels:] if answer.shape[-1] > channels else None
        terms = [*registers, output]
        if table.refine is not None:
            a, b = (float(c) for c in table.to_x0[i])
            terms.append(refined(table.refine, a * registers[0] + b * output))
        registers = [sum(c * term for c, term in zip(row, terms, strict=True)) for row in mix]
        scale = std(table, i, extra)
        if noise is not None and np.any(scale):
            registers[0] = registers[0] + scale * noise[i].astype(np.float64)
        samples.append(registers[0])
    return samples


def moments(
    table: Any, outputs: Sequence[np.ndarray], mean: float, variance: float
) -> list[tuple[float, float]]:
    """Mean and variance of register 0 after each row, for a network that is affine in x.

    Row i's output is outputs[i][0] x + outputs[i][1], x being register 0; refining changes nothing.
    """
    m = table.mix.shape[1]
    means, covariance = np.zeros(m), np.zeros((m, m))
    means[0], covariance[0, 0] = mean, variance
    found = []
    for i, mix in enumerate(np.asarray(table.mix, np.float64)):
        read = [np.asarray(outputs[i])]
        if table.refine is not None:
            read.append(table.to_x0[i, 0] * np.array([1.0, 0.0]) + table.to_x0[i, 1] * read[0])
        slopes, offsets = mix[:, m:] @ np.array(read)[:, 0], mix[:, m:] @ np.array(read)[:, 1]
        coefs = mix[:, :m] + np.outer(slopes, np.eye(m)[0])
        means, covariance = coefs @ means + offsets, coefs @ covariance @ coefs.T
        covariance[0, 0] += 0.0 if table.noise_scale is None else float(table.noise_scale[i]) ** 2
        found.append((float(means[0]), float(covariance[0, 0])))
    return found
