r"""How much each timestep counts: loss weights on the host, in float64.

With snr = alpha^2 / sigma^2, the error in eps counts

    (1)  snr        1                          so the error in x0 counts snr
    (2)  min_snr    min(1, gamma / snr)        and here min(snr, gamma)
    (3)  p2         1 / (k + snr)^gamma
    (4)  uniform    the error of what the network predicts counts 1

The network predicts a sum of x0 and eps, and its error is the error in eps, scaled:

    (5)  |error in eps|^2 = scale |error|^2,    scale = 1 (epsilon), snr (sample), alpha^2 (v)

so that a weight of (1) to (3) is multiplied by that scale.

References: Ho et al. 2020, arXiv:2006.11239, eq. 14 ((4) with epsilon); Salimans and Ho 2022,
arXiv:2202.00512, section 4 (1); Hang et al. 2023, arXiv:2303.09556, eq. 5 (2); Choi et al. 2022,
arXiv:2204.00227, eq. 8 (3).
"""

from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Float

from ddpm_jax._typing import PredictionType
from ddpm_jax.tables.schedules import NoiseSchedule

Weighting: TypeAlias = Literal["uniform", "snr", "min_snr", "p2"]


def loss_weights(
    schedule: NoiseSchedule,
    prediction_type: PredictionType,
    weighting: Weighting = "uniform",
    *,
    min_snr_gamma: float = 5.0,
    p2_gamma: float = 1.0,
    p2_k: float = 1.0,
) -> Float[np.ndarray, "T"]:
    """The weight of each training timestep's squared error, (T,) float64.

    Args:
        schedule: of the forward process.
        prediction_type: what the network predicts.
        weighting: equations (1) to (4).
        min_snr_gamma: gamma of (2), > 0.
        p2_gamma: gamma of (3), at least 0.
        p2_k: k of (3), > 0.

    >>> import ddpm_jax as dj
    >>> from ddpm_jax.training import loss_weights
    >>> weights = loss_weights(dj.noise_schedule("linear"), "epsilon", "min_snr")
    >>> print(f"{weights[0]:.4f} {weights[-1]:.4f}")  # gamma / snr, then 1
    0.0005 1.0000
    """
    ones = np.ones(len(schedule))
    if weighting == "uniform":
        return ones
    alpha_bar = schedule.alpha_bar
    snr = alpha_bar / (1.0 - alpha_bar)
    eps_weight = {
        "snr": ones,
        "min_snr": min_snr_gamma / np.maximum(snr, min_snr_gamma),
        "p2": (p2_k + snr) ** -p2_gamma,
    }[weighting]
    return eps_weight * {"epsilon": ones, "sample": snr, "v_prediction": alpha_bar}[prediction_type]
