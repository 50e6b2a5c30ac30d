"""Euler's method for preconditioned networks (Karras et al. 2022, arXiv:2206.00364).

The levels and the network's reading are those of `ddpm_jax.schedulers.edm`, the steps those of
`ddpm_jax.schedulers.churn`.
"""

from dataclasses import dataclass

from ddpm_jax.schedulers.churn import ChurnedEuler
from ddpm_jax.schedulers.edm import EDMScheduler


@dataclass(frozen=True, kw_only=True)
class EDMEulerScheduler(EDMScheduler, ChurnedEuler):
    """Euler's method, deterministic or with churn; x0 is never clipped.

    Raises:
        ValueError: at construction, naming every field that is refused.
    """
