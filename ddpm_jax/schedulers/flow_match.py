r"""What the schedulers of flow matching share (Lipman et al. 2023, arXiv:2210.02747).

Data and noise lie at the ends of straight paths, along which the network's output is the velocity:

    (1)  x = (1 - sigma) x0 + sigma eps,   output = dx / dsigma = eps - x0,   0 <= sigma <= 1

The network is told T sigma. More noise suits larger pictures (Esser et al. 2024, arXiv:2403.03206,
eq. 23):

    (2)  shift(sigma) = s sigma / (1 + (s - 1) sigma)

The levels of training are those of T even steps, shifted; a run takes even steps between the first
and the last of these, and shifts them again, as the authors' code does.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from ddpm_jax.hub.config import FLOW_FAMILY
from ddpm_jax.schedulers.continuous import UnitSigmas
from ddpm_jax.tables.readings import Reading, reading
from ddpm_jax.tables.spacing import shifted_sigmas


@dataclass(frozen=True, kw_only=True)
class FlowMatchScheduler(UnitSigmas):
    """Base of the schedulers of flow matching. Timesteps are T sigma, fractional, in (0, T].

    Attributes:
        num_train_timesteps: T, the timestep that the network is told at sigma 1, and the most
            steps; timestep t of `add_noise` is the level (t + 1) / T, shifted.
        shift: s in (2), > 0.
    """

    family: ClassVar[frozenset[str]] = FLOW_FAMILY
    _ends: ClassVar[str] = "the ends of a path"
    shift: float = 1.0

    def _faults(self) -> Sequence[str]:
        faults = list(super()._faults())
        if not self.shift > 0:
            faults.append(f"shift must be above 0, got {self.shift}")
        return faults

    def _alpha(self, sigma: float) -> float:
        return 1 - sigma

    def _reading(self, alpha: float, sigma: float) -> Reading:
        return reading("flow_prediction", alpha, sigma)._replace(in_scale=1.0)

    # Grids.

    def _sigmas(self, count: int) -> Float[np.ndarray, "n"]:
        return np.append(self._even(count, self.shift, self.shift), 0.0)

    def _even(self, count: int, trained: float, shift: float) -> Float[np.ndarray, "n"]:
        """Even steps between the levels of training, which `trained` shifts, shifted by (2)."""
        first = shifted_sigmas(np.array([1 / self.num_train_timesteps]), trained)
        return shifted_sigmas(np.linspace(1.0, float(first[0]), count), shift)

    def _timestep_of(self, sigmas: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
        return sigmas * self.num_train_timesteps

    def _sigma_of(self, timesteps: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
        return timesteps / self.num_train_timesteps

    def _timestep_limits(self) -> tuple[float, float]:
        return 0.0, float(self.num_train_timesteps)

    def _training_levels(self) -> tuple[Float[np.ndarray, "T"], Float[np.ndarray, "T"]]:
        even = np.arange(1, self.num_train_timesteps + 1) / self.num_train_timesteps
        sigmas = shifted_sigmas(even, self._training_shift())
        return 1 - sigmas, sigmas

    def _training_shift(self) -> float:
        """The shift at training; 1 where it follows from a picture's size."""
        return self.shift
