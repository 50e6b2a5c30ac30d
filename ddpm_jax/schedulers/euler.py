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
from math import inf, sqrt
from typing import Any, Literal, TypeAlias

import numpy as np
from jaxtyping import Float

from ddpm_jax._typing import Timesteps, is_number
from ddpm_jax.schedulers.sigmas import SigmaScheduler, exploding
from ddpm_jax.tables.builder import TableBuilder
from ddpm_jax.tables.spacing import SigmaSpacing, sigma_grid
from ddpm_jax.tables.table import Table

InterpolationType: TypeAlias = Literal["linear", "log_linear"]
TimestepType: TypeAlias = Literal["discrete", "continuous"]
FinalSigmasType: TypeAlias = Literal["zero", "sigma_min"]


@dataclass(frozen=True, kw_only=True)
class EulerDiscreteScheduler(SigmaScheduler):
    """Euler's method, deterministic or with churn; x0 is never clipped.

    Attributes:
        interpolation_type: "linear": sigma at each timestep. "log_linear": N + 1 even steps of log
            sigma over the whole schedule, the last being the end point.
        use_karras_sigmas: noise levels by arXiv:2206.00364, eq. 5.
        use_exponential_sigmas: noise levels in even steps of log sigma.
        use_beta_sigmas: noise levels at quantiles of Beta(0.6, 0.6), arXiv:2407.12173.
        sigma_min: last level of those three; None: that of the timesteps.
        sigma_max: first level of those three; None: that of the timesteps.
        timestep_type: "continuous" tells the network log(sigma) / 4; only with "v_prediction".
        final_sigmas_type: end at sigma 0 or at the training schedule's first sigma; "log_linear"
            without one of the three `use_` fields ends there in any case, as in diffusers.

    Raises:
        ValueError: at construction, naming every field that is refused.
    """

    interpolation_type: InterpolationType = "linear"
    use_karras_sigmas: bool = False
    use_exponential_sigmas: bool = False
    use_beta_sigmas: bool = False
    sigma_min: float | None = None
    sigma_max: float | None = None
    timestep_type: TimestepType = "discrete"
    final_sigmas_type: FinalSigmasType = "zero"

    def table(
        self,
        num_inference_steps: int | None = None,
        *,
        timesteps: Timesteps | None = None,
        start: int = 0,
        dtype: Any = np.float32,
        s_churn: float = 0.0,
        s_tmin: float = 0.0,
        s_tmax: float = inf,
        s_noise: float = 1.0,
    ) -> Table:
        """The run as a table; one row per step.

        Args:
            num_inference_steps: number of steps N, in 1..num_train_timesteps.
            timesteps: exactly these, strictly descending, in place of the spacing; may be
                fractional.
            start: leave out this many of the first steps.
            dtype: of the columns; float64 gives them uncast.
            s_churn: total amount of churn, >= 0, equation (2); exactly 0 needs no keys.
            s_tmin: churn only from this sigma on.
            s_tmax: churn only up to this sigma.
            s_noise: scale of the churn noise, >= 0, equation (3).

        Raises:
            ValueError: neither or bad numbers of steps, a start past the last step, negative churn,
                or `timesteps` with a config that chooses the noise levels itself.
        """
        churn = {"s_churn": s_churn, "s_tmin": s_tmin, "s_tmax": s_tmax, "s_noise": s_noise}
        wrong = [f"{k}={v!r}" for k, v in churn.items() if not is_number(v) or not v >= 0]
        if wrong or inf in (s_churn, s_noise):
            raise ValueError(f"churn takes numbers >= 0, got {', '.join(wrong) or 'inf'}")
        self._check_custom(timesteps)
        given = self._timesteps(num_inference_steps, timesteps)
        told, sigmas = self._noise_levels(given)
        told, sigmas = self._from_start(told, start), sigmas[start:]
        rises = (s_tmin <= sigmas[:-1]) & (sigmas[:-1] <= s_tmax)
        gamma = np.where(rises, min(s_churn / (num_inference_steps or len(given)), sqrt(2) - 1), 0)
        raised = sigmas[:-1] * (1 + gamma)  # (3)
        told = np.where(gamma > 0, self._told(raised), told)
        spread = s_noise * np.sqrt(raised**2 - sigmas[:-1] ** 2)
        build = TableBuilder(("x",), self.prediction_type, None)
        levels, ends = exploding(told, raised), exploding(np.append(told[1:], -1.0), sigmas[1:])
        for level, end, noise in zip(levels, ends, np.append(spread[1:], 0.0), strict=True):
            build.row(*level, x={"x0": end.alpha, "eps": end.sigma, "z": noise})  # (1)
        prior = np.hypot(self._prior_scale(float(sigmas[0])), spread[0])
        return build.build(prior, dtype, stochastic=s_churn > 0)

    def _noise_levels(
        self, timesteps: Float[np.ndarray, "n"]
    ) -> tuple[Float[np.ndarray, "n"], Float[np.ndarray, "n+1"]]:
        """What the network is told, and the sigmas with the end point."""
        count, training = len(timesteps), self.noise_schedule.noise_ratio
        if self.interpolation_type == "log_linear":
            sigmas = sigma_grid("exponential", training[-1], training[0], count + 1)
        else:
            sigmas = self._sigmas(timesteps)
        spacing = self._sigma_spacing()
        if spacing is not None:
            high = sigmas[0] if self.sigma_max is None else self.sigma_max
            low = sigmas[-1] if self.sigma_min is None else self.sigma_min
            sigmas = sigma_grid(spacing, high, low, count)
            timesteps = self._told(sigmas)
        if self.timestep_type == "continuous":
            timesteps = self._told(sigmas[:count])
        last = training[0] if self.final_sigmas_type == "sigma_min" else 0.0
        return timesteps, np.append(sigmas, last)[: count + 1]

    def _told(self, sigmas: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
        """What the network is told at a noise level."""
        continuous = self.timestep_type == "continuous"
        return np.log(sigmas) / 4 if continuous else self._timestep_of(sigmas)

    def _sigma_spacing(self) -> SigmaSpacing | None:
        if self.use_karras_sigmas:
            return "karras"
        if self.use_exponential_sigmas:
            return "exponential"
        return "beta" if self.use_beta_sigmas else None

    def _check_custom(self, timesteps: Timesteps | None) -> None:
        chosen = self._sigma_spacing() or (
            "continuous" if self.timestep_type == "continuous" else None
        )
        if timesteps is not None and chosen:
            raise ValueError(
                f"timesteps cannot be given to a scheduler with {chosen} noise levels, "
                "which follow from num_inference_steps"
            )

    def _faults(self) -> Sequence[str]:
        faults = list(super()._faults())
        flags = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")
        chosen = [flag for flag in flags if getattr(self, flag)]
        if len(chosen) > 1:
            faults.append(f"only one of {', '.join(flags)} may be set, got {', '.join(chosen)}")
        limits = {"sigma_min": self.sigma_min, "sigma_max": self.sigma_max}
        for name, value in limits.items():
            if value is not None and not chosen:
                faults.append(f"{name} needs one of {', '.join(flags)}, got {value} with none")
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
