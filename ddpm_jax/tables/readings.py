r"""What a network is given at a level, and how its output reads as x0 and eps.

With x = alpha x0 + sigma eps and h^2 = alpha^2 + sigma^2 the network's input is x / h, and

    (1)  epsilon:       eps = output,     x0 = (x - sigma output) / alpha
    (2)  sample:        x0  = output,     eps = (x - alpha output) / sigma
    (3)  v_prediction:  x0  = (alpha / h^2) x - (sigma / h) output,
                        eps = (sigma / h^2) x + (alpha / h) output
    (4)  flow_prediction, output = eps - x0 (Lipman et al. 2023, arXiv:2210.02747):
                        x0  = (x - sigma output) / (alpha + sigma),
                        eps = (x + alpha output) / (alpha + sigma)

Networks in Karras et al.'s preconditioning (2022, arXiv:2206.00364, Table 1) see data of standard
deviation sigma_data at alpha = 1, so their input is x / h with h^2 = sigma^2 + sigma_data^2, and

    (5)  x0 = c_skip x + c_out output,   eps = (x - x0) / sigma,
         c_skip = sigma_data^2 / (s^2 + sigma_data^2),   c_out = s sigma_data / h

with s = sigma. Consistency models have s = sigma - sigma_min, so that x0 is x at sigma_min (Song et
al. 2023, arXiv:2303.01469, appendix C).

(3) follows from v = (alpha eps - sigma x0) / h (Salimans and Ho 2022, arXiv:2202.00512, appendix
D). It holds for variance-preserving (h = 1) and variance-exploding (alpha = 1) methods.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from ddpm_jax._typing import AnyPredictionType


class Reading(NamedTuple):
    """The network's place in a row, at one level.

    Attributes:
        in_scale: the network's input is in_scale x.
        x0: coefficients of (x, output) in the predicted x0.
        eps: coefficients of (x, output) in the predicted eps.
    """

    in_scale: float
    x0: tuple[float, float]
    eps: tuple[float, float]


Read: TypeAlias = Callable[[float, float], Reading]
"""(alpha, sigma) -> Reading."""


def reading(prediction_type: AnyPredictionType, alpha: float, sigma: float) -> Reading:
    """Equations (1) to (4), for a network whose input has unit variance."""
    h = _norm(alpha, sigma)
    numbers = (prediction_type, alpha, sigma, h)
    return Reading(1 / h, x0_of(*numbers), eps_of(*numbers))


def x0_of(prediction_type: AnyPredictionType, alpha: Any, sigma: Any, h: Any) -> tuple[Any, Any]:
    """The coefficients of (x, output) in x0, of numbers or of arrays of a level's numbers."""
    match prediction_type:
        case "epsilon":
            return 1 / alpha, -sigma / alpha
        case "sample":
            return 0.0 * alpha, 1.0 + 0.0 * alpha
        case "v_prediction":
            return alpha / h**2, -sigma / h
        case "flow_prediction":
            return 1 / (alpha + sigma), -sigma / (alpha + sigma)


def eps_of(prediction_type: AnyPredictionType, alpha: Any, sigma: Any, h: Any) -> tuple[Any, Any]:
    """The coefficients of (x, output) in eps, as `x0_of`."""
    match prediction_type:
        case "epsilon":
            return 0.0 * alpha, 1.0 + 0.0 * alpha
        case "sample":
            return 1 / sigma, -alpha / sigma
        case "v_prediction":
            return sigma / h**2, alpha / h
        case "flow_prediction":
            return 1 / (alpha + sigma), alpha / (alpha + sigma)


def preconditioned(
    sigma: float, sigma_data: float, *, sigma_min: float = 0.0, sign: float = 1.0
) -> Reading:
    """Equation (5), at alpha = 1.

    Args:
        sigma: noise level, > 0.
        sigma_data: standard deviation of the data, > 0.
        sigma_min: where x0 is x; 0 but for consistency models.
        sign: of c_out: 1, or -1 for networks that answer with the opposite, as v does.
    """
    h, gap = float(np.hypot(sigma, sigma_data)), sigma - sigma_min
    square = gap**2 + sigma_data**2
    skip, out = sigma_data**2 / square, sign * gap * sigma_data / h
    return Reading(1 / h, (skip, out), (gap**2 / square / sigma, -out / sigma))


def _norm(alpha: float, sigma: float) -> float:
    """The norm h, exactly 1 if variance is preserved, so that rounding is not amplified later."""
    root = float(np.hypot(alpha, sigma))
    # With sqrt(alpha_bar) and sqrt(1 - alpha_bar), h differs from 1 by a few 2^-53 = 1.1e-16.
    return 1.0 if abs(root - 1.0) < 1e-14 else root
