r"""Euler's method on the probability-flow ODE (Karras et al. 2022, arXiv:2206.00364, Alg. 2).

    (1)  dx / dsigma = eps,   so   x <- x + (sigma' - sigma) eps = x0 + sigma' eps

With churn, noise raises sigma before an evaluation, and both the evaluation and the step start
from the raised level:

    (2)  gamma = min(s_churn / N, sqrt(2) - 1) where s_tmin <= sigma <= s_tmax, else 0
    (3)  sigma^ = (1 + gamma) sigma,   x^ = x + s_noise sqrt(sigma^^2 - sigma^2) z

In a table that noise belongs to the row before, and at the first row to the prior.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf, sqrt
from typing import Any, Literal, NamedTuple, TypeAlias, Unpack

import numpy as np
from jaxtyping import Float

from ddpm_jax._typing import TimestepSpacing, is_number
from ddpm_jax.schedulers.base import GridOptions
from ddpm_jax.schedulers.fields import FinalSigmas, SigmaSpacings, ZeroTerminalSNR
from ddpm_jax.schedulers.sigmas import SigmaScheduler
from ddpm_jax.tables.builder import Level
from ddpm_jax.tables.spacing import sigma_grid
from ddpm_jax.tables.table import Table

InterpolationType: TypeAlias = Literal["linear", "log_linear"]
TimestepType: TypeAlias = Literal["discrete", "continuous"]

USE_SIGMAS = "one of use_karras_sigmas, use_exponential_sigmas, use_beta_sigmas"


class EulerStep(NamedTuple):
    """One step of Algorithm 2.

    Attributes:
        level: where x is before the churn.
        raised: where it is after the churn, sigma^ of (3); the network is evaluated there.
        end: where the step ends.
        churn: standard deviation of the noise that raises `level`.
    """

    level: Level
    raised: Level
    end: Level
    churn: float


@dataclass(frozen=True, kw_only=True)
class EulerDiscreteScheduler(FinalSigmas, SigmaSpacings, SigmaScheduler, ZeroTerminalSNR):
    """Euler's method, deterministic or with churn; x0 is never clipped.

    Attributes:
        interpolation_type: "linear": sigma at each timestep. "log_linear": N + 1 even steps of log
            sigma over the whole schedule, the last being the end point, whatever
            `final_sigmas_type` says, as in diffusers.
        sigma_min: last level of the spaced levels; None: that of the timesteps.
        sigma_max: first level of the spaced levels; None: that of the timesteps.
        timestep_type: "continuous" gives the network log(sigma) / 4; only with "v_prediction".

    Raises:
        ValueError: at construction, naming every field that is refused.
    """

    timestep_spacing: TimestepSpacing = "linspace"
    interpolation_type: InterpolationType = "linear"
    sigma_min: float | None = None
    sigma_max: float | None = None
    timestep_type: TimestepType = "discrete"

    def table(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        num_inference_steps: int | None = None,
        *,
        s_churn: float = 0.0,
        s_tmin: float = 0.0,
        s_tmax: float = inf,
        s_noise: float = 1.0,
        **grid: Unpack[GridOptions],
    ) -> Table:
        """The run as a table; one row per step.

        Args:
            num_inference_steps: number of steps N, in 1..num_train_timesteps.
            s_churn: total amount of churn, >= 0, equation (2); exactly 0 needs no keys.
            s_tmin: churn only from this sigma on.
            s_tmax: churn only up to this sigma.
            s_noise: scale of the churn noise, >= 0, equation (3).
            **grid: timesteps, sigmas, start, dtype; see `GridOptions`.

        Raises:
            ValueError: as for any scheduler, or negative churn.
        """
        churn = {"s_churn": s_churn, "s_tmin": s_tmin, "s_tmax": s_tmax, "s_noise": s_noise}
        wrong = [f"{k}={v!r}" for k, v in churn.items() if not is_number(v) or not v >= 0]
        if wrong or inf in (s_churn, s_noise):
            raise ValueError(f"churn takes numbers >= 0, got {', '.join(wrong) or 'inf'}")
        levels, dtype = self._run(num_inference_steps, grid)
        count = num_inference_steps or len(levels) - 1 + grid.get("start", 0)
        gamma = min(s_churn / count, sqrt(2) - 1)
        steps = self._steps(levels, gamma, (s_tmin, s_tmax), s_noise)
        return self._write_steps(steps, dtype, stochastic=s_churn > 0)

    def _write(self, levels: list[Level], dtype: Any) -> Table:
        return self._write_steps(self._steps(levels), dtype, stochastic=False)

    def _steps(
        self,
        levels: list[Level],
        gamma: float = 0.0,
        limits: tuple[float, float] = (0.0, inf),
        s_noise: float = 1.0,
    ) -> list[EulerStep]:
        """Equations (2) and (3) for every step."""
        steps: list[EulerStep] = []
        for level, end in pairwise(levels):
            raised, churns = level, gamma > 0 and limits[0] <= level.sigma <= limits[1]
            if churns:
                sigma = level.sigma * (1 + gamma)
                raised = Level(float(self._timestep_of(np.array([sigma]))[0]), 1.0, sigma)
            churn = s_noise * sqrt(raised.sigma * raised.sigma - level.sigma * level.sigma)
            steps.append(EulerStep(level, raised, end, churn))
        return steps

    def _write_steps(self, steps: list[EulerStep], dtype: Any, *, stochastic: bool) -> Table:
        build = self._builder("x")
        next_churn = [*(step.churn for step in steps[1:]), 0.0]
        for step, noise in zip(steps, next_churn, strict=True):
            build.row(*step.raised, x={"x0": 1.0, "eps": step.end.sigma, "z": noise})  # (1)
        prior = np.hypot(self._prior_scale(steps[0].level), steps[0].churn)
        return build.build(prior, dtype, stochastic=stochastic)

    def _paired(
        self, timesteps: Float[np.ndarray, "n"], sigmas: Float[np.ndarray, "n"]
    ) -> list[Level]:
        if self.timestep_type == "continuous":
            timesteps = np.append(self._timestep_of(sigmas[:-1]), -1.0)
        return super()._paired(timesteps, sigmas)

    def _sigmas(self, timesteps: Float[np.ndarray, "n"]) -> Float[np.ndarray, "..."]:
        """One more than the timesteps, with the end point, under "log_linear"."""
        if self.interpolation_type == "linear":
            return super()._sigmas(timesteps)
        ratio = self.noise_schedule.noise_ratio
        return sigma_grid("exponential", ratio[-1], ratio[0], len(timesteps) + 1)

    def _sigma_limits(self, count: int) -> tuple[float, float]:
        high, low = super()._sigma_limits(count)
        return (
            high if self.sigma_max is None else self.sigma_max,
            low if self.sigma_min is None else self.sigma_min,
        )

    def _timestep_of(self, sigmas: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
        if self.timestep_type == "continuous":
            return np.log(sigmas) / 4
        return super()._timestep_of(sigmas)

    def _fault_of_grid(self, name: str) -> str | None:
        if name == "timesteps" and self.timestep_type == "continuous":
            return 'timesteps are those of a "discrete" timestep_type: give sigmas'
        return super()._fault_of_grid(name)

    def _faults(self) -> Sequence[str]:
        faults = list(super()._faults())
        limits = {"sigma_min": self.sigma_min, "sigma_max": self.sigma_max}
        for name, value in limits.items():
            if value is not None and self._sigma_spacing() is None:
                faults.append(f"{name} needs {USE_SIGMAS}, got {value} with none")
            if value is not None and not value > 0:
                faults.append(f"{name} must be above 0, got {value}")
        if self.sigma_min and self.sigma_max and self.sigma_min >= self.sigma_max:
            faults.append(
                f"sigma_min must be below sigma_max, got {self.sigma_min} and {self.sigma_max}"
            )
        if self.timestep_type == "continuous" and self.prediction_type != "v_prediction":
            faults.append(
                'timestep_type "continuous" needs prediction_type "v_prediction", '
                f"got {self.prediction_type!r}"
            )
        return faults
