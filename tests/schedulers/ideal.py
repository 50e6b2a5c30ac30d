"""What a network that knows x0 and eps answers, and what it is given, for every scheduler.

Each is the definition of what the scheduler's network predicts, for x = alpha x0 + sigma eps. All
answers are linear in (x0, eps), so these may be numbers, images or coefficients.
"""

from typing import Any

import numpy as np

from ddpm_jax.hub import config

PROCESSES = {
    config.EDM_FAMILY: "edm",
    config.FLOW_FAMILY: "flow",
    config.CM_FAMILY: "consistency",
    config.SCORE_FAMILY: "score",
    config.KARRAS_FAMILY: "slope",
    config.IPNDM_FAMILY: "velocity",
}


def process(cls: Any) -> str:
    """The forward process and the network's part in it: "betas" but for some."""
    return PROCESSES.get(cls.family, "betas")


def output_of(scheduler: Any, level: Any, x0: Any, eps: Any) -> Any:
    """The network's output at a level (alpha, sigma)."""
    alpha, sigma = (float(part) for part in level)
    x, h = alpha * x0 + sigma * eps, np.hypot(alpha, sigma)
    match process(type(scheduler)):
        case "edm":  # Karras et al. 2022 (arXiv 2206.00364), equation 8
            target = (x0 - _skip(scheduler, sigma) * x) / _out(scheduler, sigma)
            return target if scheduler.prediction_type == "epsilon" else -target
        case "consistency":  # Song et al. 2023 (arXiv 2303.01469): x at sigma_min, of any x
            gap = sigma - scheduler.sigma_min
            if gap < 1e-12:
                return 0 * x
            skip = scheduler.sigma_data**2 / (gap**2 + scheduler.sigma_data**2)
            out = _out(scheduler, sigma) * gap / sigma
            return (read_of(scheduler, x0, eps) - skip * x) / out
        case "flow":
            return x0 - eps if getattr(scheduler, "invert_sigmas", False) else eps - x0
        case "score":
            return -eps / sigma
        case "slope":
            return -eps
    v = (alpha * eps - sigma * x0) / h
    if process(type(scheduler)) == "velocity":
        return v
    answers = {"epsilon": eps, "sample": x0, "v_prediction": v, "flow_prediction": eps - x0}
    return answers[scheduler.prediction_type]


def read_of(scheduler: Any, x0: Any, eps: Any) -> Any:
    """What the output is read as: x0, or x at sigma_min in a consistency model."""
    if process(type(scheduler)) == "consistency":
        return x0 + scheduler.sigma_min * eps
    return x0


def input_scale(scheduler: Any, level: Any) -> float:
    """in_scale: one over the standard deviation of x, or 1 where the network is given x itself."""
    given_x = process(type(scheduler)) in ("flow", "score", "slope")
    if given_x or getattr(scheduler, "use_flow_sigmas", False):
        return 1.0
    return 1 / float(np.hypot(level[0] * getattr(scheduler, "sigma_data", 1.0), level[1]))


def _skip(scheduler: Any, sigma: float) -> float:
    return scheduler.sigma_data**2 / (sigma**2 + scheduler.sigma_data**2)


def _out(scheduler: Any, sigma: float) -> float:
    return sigma * scheduler.sigma_data / float(np.hypot(sigma, scheduler.sigma_data))
