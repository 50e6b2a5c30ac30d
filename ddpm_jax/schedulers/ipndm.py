r"""F-PNDM on the levels of v-diffusion, without a warm-up (Liu et al. 2022, arXiv:2202.09778).

The steps are the pseudo linear multistep ones of `ddpm_jax.schedulers.pndm`, equation (1) there.
Their orders grow from 1 to 4 while the history fills. The network predicts v, is told the angle t,
and N steps are even in s, from 1 to 0 (Crowson's v-diffusion, its "crash" schedule):

    (1)  sigma = sin^2(s pi / 2),   alpha^2 + sigma^2 = 1,   t = (2 / pi) atan(sigma / alpha)

The first level is noise alone. There x0 = -v, and the first step, of order 1, needs no slope.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from ddpm_jax.hub.config import IPNDM_FAMILY
from ddpm_jax.schedulers.continuous import UnitSigmas
from ddpm_jax.schedulers.pndm import ADAMS, multistep
from ddpm_jax.tables.builder import Level
from ddpm_jax.tables.readings import Reading, reading
from ddpm_jax.tables.table import Table


@dataclass(frozen=True, kw_only=True)
class IPNDMScheduler(UnitSigmas):
    """Pseudo linear multistep sampling of networks that predict v; deterministic.

    N steps take N evaluations. Timesteps are angles as shares of a right angle, in (0, 1]; `sigmas`
    are those of (1), in [0, 1]. With `start` the rest begins with no past, as a whole run does.

    Attributes:
        num_train_timesteps: the most steps; timestep t of `add_noise` is level T - 1 - t of a run
            of T steps.
        trained_betas: the sigmas of the run's levels and of its end, strictly descending in [0, 1],
            for which diffusers has this name; a run has then one step fewer than there are of
            them. None: (1). Kept as a tuple.

    Raises:
        ValueError: at construction, naming every field that is refused.
    """

    _ends: ClassVar[str] = "those of unit variance"
    order: ClassVar[int] = 2
    one_row_per_step: ClassVar[bool] = False  # one it is, but with `start` the rows are others
    family: ClassVar[frozenset[str]] = IPNDM_FAMILY

    trained_betas: Sequence[float] | Float[np.ndarray, "n"] | None = None

    _unchecked: ClassVar[tuple[str, ...]] = ("trained_betas",)

    def __post_init__(self) -> None:
        if self.trained_betas is not None:
            sigmas = np.asarray(self.trained_betas, np.float64)
            if sigmas.ndim != 1:
                raise ValueError(
                    f"trained_betas must be a list of numbers, got shape {sigmas.shape}"
                )
            object.__setattr__(self, "trained_betas", tuple(sigmas.tolist()))
        super().__post_init__()

    def _faults(self) -> Sequence[str]:
        faults, given = list(super()._faults()), self.trained_betas
        if given is None:
            return faults
        sigmas = np.asarray(given)
        falls = len(sigmas) > 1 and np.all(np.diff(sigmas) < 0)
        if not (falls and sigmas[-1] >= 0 and sigmas[0] <= 1):
            faults.append(
                "trained_betas must be two or more sigmas that descend strictly within 0..1, "
                f"got {sigmas.tolist()}"
            )
        elif len(sigmas) > self.num_train_timesteps + 1:
            faults.append(
                f"trained_betas must be at most num_train_timesteps + 1 = "
                f"{self.num_train_timesteps + 1} numbers, got {len(sigmas)}"
            )
        return faults

    def _write(self, levels: list[Level], dtype: Any) -> Table:
        build = self._builder("x", "e1", "e2", "e3")
        for i, (level, end) in enumerate(pairwise(levels), start=1):
            multistep(build, level, end, min(i, len(ADAMS)))
        return build.build(self._prior_scale(levels[0]), dtype)

    def _reading(self, alpha: float, sigma: float) -> Reading:
        return reading("v_prediction", alpha, sigma)

    # Grids.

    def _alpha(self, sigma: float) -> float:
        return sqrt((1 - sigma) * (1 + sigma))

    def _sigmas(self, count: int) -> Float[np.ndarray, "n"]:
        if self.trained_betas is None:
            return np.sin(np.linspace(1, 0, count + 1) * np.pi / 2) ** 2  # (1)
        sigmas = np.asarray(self.trained_betas)
        if count != len(sigmas) - 1:
            raise ValueError(
                f"num_inference_steps must be {len(sigmas) - 1}, the steps between the "
                f"trained_betas, got {count}"
            )
        return sigmas

    def _training_levels(self) -> tuple[Float[np.ndarray, "T"], Float[np.ndarray, "T"]]:
        if self.trained_betas is None:
            return super()._training_levels()
        sigmas = np.asarray(self.trained_betas)[-2::-1]
        return np.array([self._alpha(float(sigma)) for sigma in sigmas]), sigmas

    def _timestep_of(self, sigmas: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
        return 2 / np.pi * np.arcsin(sigmas)

    def _sigma_of(self, timesteps: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
        return np.sin(timesteps * np.pi / 2)

    def _timestep_limits(self) -> tuple[float, float]:
        return 0.0, 1.0
