"""Every scheduler with every option: the list for the matrix tests.

A new scheduler is one line in `SCHEDULERS`. Its options follow from its config fields: each value
of `VARIATIONS` whose field it has makes a case, in addition to the plain cases over prediction
types and spacings.
"""

import dataclasses
import functools
import inspect
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import pytest

import ddpm_jax as dj
from ddpm_jax.schedulers import SCHEDULERS, LCMScheduler, TCDScheduler
from ddpm_jax.schedulers.adams import AdamsMethod
from ddpm_jax.schedulers.betas import BetaScheduler
from ddpm_jax.schedulers.sigmas import SigmaScheduler
from tests.schedulers import ideal, reference

FEWEST = "original_inference_steps"
VP, VE = "variance preserving", "variance exploding"


# Options of `table` that make a run stochastic, by the option that enables the noise.
NOISY: dict[str, tuple[dict[str, Any], ...]] = {
    "eta": ({"eta": 0.3}, {"eta": 1.0}),
    "s_churn": ({"s_churn": 2.0},),
    "jump_length": ({"jump_length": 3, "jump_n_sample": 2},),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Family:
    """A scheduler class, and properties from its declarations."""

    cls: Any

    @property
    def predictions(self) -> tuple[str | None, ...]:
        """The prediction types that it takes; None if it has no such field."""
        if "prediction_type" not in self.fields:
            return (None,)
        taken = get_args(get_type_hints(self.cls)["prediction_type"])
        if issubclass(self.cls, dj.DDIMInverseScheduler):
            taken = [p for p in taken if p != "sample"]  # refused by default
        return tuple(p for p in ("epsilon", "sample", "v_prediction") if p in taken)

    def takes(self, config: dict[str, Any]) -> bool:
        """Whether the values are among those of fields that are choices, and there are as many
        timesteps as a distilled network was trained with."""
        trained = config.get("original_inference_steps", getattr(self.plain.scheduler, FEWEST, 1))
        if trained > config.get("num_train_timesteps", 1000):
            return False
        choices = {name: get_type_hints(self.cls)[name] for name in config}
        return all(
            get_origin(hint) is not Literal or config[name] in get_args(hint)
            for name, hint in choices.items()
        )

    @property
    def order(self) -> int:
        """Claimed order of convergence; for stochastic ones that of the marginal moments."""
        return self.cls.order

    @property
    def kind(self) -> str:
        """Whether x = alpha x0 + sigma eps has alpha^2 + sigma^2 = 1, or alpha = 1."""
        return VE if issubclass(self.cls, SigmaScheduler) else VP

    @property
    def plain(self) -> "Case":
        """The scheduler with its defaults."""
        return Case(self, ())

    @property
    def has_betas(self) -> bool:
        return issubclass(self.cls, BetaScheduler)

    def spaced(self, spacing: str) -> Any:
        """The plain scheduler with this spacing, if it can be chosen."""
        field = "timestep_spacing"
        return self.cls(**({field: spacing} if field in self.fields else {}))

    @property
    def name(self) -> str:
        return self.cls.__name__.removesuffix("Scheduler")

    @property
    def fields(self) -> set[str]:
        """Those of its config that any number of steps has; IPNDM's trained_betas are one run."""
        found = {field.name for field in dataclasses.fields(self.cls) if field.init}
        return found - self.cls.unread - (set() if self.has_betas else {"trained_betas"})


FAMILIES = tuple(Family(cls) for cls in SCHEDULERS)
BETA_FAMILIES = tuple(family for family in FAMILIES if family.has_betas and not family.cls.ascends)
"""Those with betas that walk down; tests/schedulers/test_ascending.py has the others."""

SPACINGS = ("leading", "trailing", "linspace", "quadratic")


def some_noise(timestep: float) -> float:
    """SA-Solver's tau."""
    return 0.5 + timestep / 2000


# One at a time on the plain scheduler; each applies to the schedulers that have all its fields.
VARIATIONS: tuple[dict[str, Any], ...] = (
    {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    {"beta_schedule": "squaredcos_cap_v2"},
    {"beta_schedule": "sigmoid"},
    {"beta_schedule": "laplace"},
    {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction"},
    {"trained_betas": tuple(np.linspace(1e-3, 0.5, 40).tolist()), "num_train_timesteps": 40},
    {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"},
    {
        "rescale_betas_zero_snr": True,
        "prediction_type": "v_prediction",
        "timestep_spacing": "trailing",
    },
    {"steps_offset": 1, "timestep_spacing": "leading"},
    {"clip_sample": False},
    {"clip_sample": True},
    {"clip_sample": True, "clip_sample_range": 2.0},
    {"thresholding": True},
    {"thresholding": True, "dynamic_thresholding_ratio": 0.7, "sample_max_value": 1.5},
    *(  # DDPM's
        {"variance_type": kind, "clip_sample": True}
        for kind in ("fixed_small_log", "fixed_large", "fixed_large_log")
    ),
    {"variance_type": "learned"},
    {"variance_type": "learned_range"},
    {"set_alpha_to_one": False},
    {"set_alpha_to_one": True},
    {"skip_prk_steps": True},
    {"skip_prk_steps": True, "prediction_type": "v_prediction", "timestep_spacing": "trailing"},
    {"use_karras_sigmas": True},
    {"use_karras_sigmas": True, "sigma_min": 0.05, "sigma_max": 40.0},
    {"use_exponential_sigmas": True},
    {"use_beta_sigmas": True},
    {"use_karras_sigmas": True, "prediction_type": "v_prediction", "timestep_type": "continuous"},
    {"interpolation_type": "log_linear"},
    {"final_sigmas_type": "sigma_min"},
    {"use_karras_sigmas": True, "final_sigmas_type": "sigma_min"},
    {"use_lu_lambdas": True},
    {"solver_order": 1},
    {"solver_order": 3},
    {"solver_type": "heun"},
    {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"},
    {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min", "thresholding": True},
    {"algorithm_type": "sde-dpmsolver++"},
    {"algorithm_type": "sde-dpmsolver++", "solver_order": 3, "final_sigmas_type": "sigma_min"},
    {"algorithm_type": "sde-dpmsolver", "final_sigmas_type": "sigma_min"},
    {"lower_order_final": False},
    {"lower_order_final": True},
    {"euler_at_final": True},
    {"lambda_min_clipped": -5.1, "beta_schedule": "squaredcos_cap_v2"},
    {"use_flow_sigmas": True, "prediction_type": "flow_prediction"},
    {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0},
    {"use_flow_sigmas": True, "prediction_type": "epsilon", "final_sigmas_type": "sigma_min"},
    {
        "use_flow_sigmas": True,
        "prediction_type": "flow_prediction",
        "algorithm_type": "dpmsolver",
        "final_sigmas_type": "sigma_min",
    },
    {"use_dynamic_shifting": False, "time_shift_type": "exponential"},
    {"algorithm_type": "deis", "euler_at_final": True},
    {"predict_x0": False},
    {"predict_x0": False, "final_sigmas_type": "sigma_min", "prediction_type": "sample"},
    {"solver_type": "bh1", "disable_corrector": (0, 2), "solver_p": None},
    {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "shift_terminal": 0.1},
    {"predictor_order": 1, "corrector_order": 3},
    {"predictor_order": 4, "corrector_order": 1, "tau_func": some_noise},
    {"algorithm_type": "noise_prediction"},
    {"algorithm_type": "noise_prediction", "thresholding": True},
    {"algorithm_type": "deis"},
    # without betas
    {"sigma_data": 0.8, "sigma_min": 0.01, "sigma_max": 50.0},
    {"sigma_data": 0.5, "num_train_timesteps": 60},
    {"sigma_schedule": "exponential"},
    {"rho": 5.0},
    {"clip_denoised": False},
    {"shift": 3.0, "num_train_timesteps": 60},
    {"shift": 2.0, "shift_terminal": 0.1},
    {"invert_sigmas": True},
    {"stochastic_sampling": True},
    {"stochastic_sampling": True, "invert_sigmas": True},
    {"base_shift": 0.4, "max_shift": 1.2, "base_image_seq_len": 128, "max_image_seq_len": 1024},
    {"correct_steps": 2, "sigma_min": 0.05, "sigma_max": 50.0},
    {"correct_steps": 0, "num_train_timesteps": 60},
    {"snr": 0.1, "sampling_eps": 1e-3},
    {"s_noise": 1.0},
    {"s_churn": 0.0, "sigma_min": 0.05, "sigma_max": 50.0},
    {"s_churn": 20.0, "s_min": 0.1, "s_max": 20.0, "s_noise": 1.0},
    {"eta": 0.3},
    {"eta": 1.0, "clip_sample": False},
    # distilled
    {"original_inference_steps": 100},
    {
        "trained_betas": tuple(np.linspace(1e-3, 0.5, 40).tolist()),
        "num_train_timesteps": 40,
        "original_inference_steps": 37,
    },
    {"timestep_scaling": 2.0},
    {"noise_sampler_seed": None},
)

STEPS = (1, 3, 10, 37)
"""Numbers of inference steps: 1, fewer than PNDM's warm-up, and one that does not divide 1000."""


@dataclasses.dataclass(frozen=True)
class Case:
    """One scheduler with its options."""

    family: Family
    config: tuple[tuple[str, Any], ...]

    def __str__(self) -> str:
        shown = ",".join(
            f"{key}={'...' if isinstance(value, tuple) or callable(value) else value}"
            for key, value in self.config
        )
        return f"{self.family.name}({shown})"

    @functools.cached_property
    def scheduler(self) -> Any:
        return self.family.cls(**dict(self.config))

    @property
    def exact(self) -> bool:
        """Whether the noise gives exact marginals at each row: it does, but for a corrector,
        noise that is louder than it should be, or a reading that mixes x0 and x."""
        if hasattr(self.scheduler, "snr") or self.family.cls is LCMScheduler:
            return False
        return getattr(self.scheduler, "s_noise", 1.0) == 1

    def get(self, field: str) -> Any:
        return getattr(self.scheduler, field)

    @property
    def deterministic(self) -> tuple[dict[str, Any], ...]:
        """Keyword sets for `table` that need no noise."""
        return () if draws(self) else ({},)

    @property
    def stochastic(self) -> tuple[dict[str, Any], ...]:
        """Keyword sets for `table` that need noise."""
        options = inspect.signature(self.family.cls.table).parameters
        noisy = tuple(call for name, calls in NOISY.items() if name in options for call in calls)
        return ({}, *noisy) if draws(self) else noisy


@functools.cache
def draws(case: Case) -> bool:
    """Whether a run draws noise whatever the options of `table` are."""
    return case.scheduler.table(1).noise_scale is not None


def _cases() -> Iterator[Case]:
    for family in FAMILIES:
        # a prediction type and a spacing do not depend on each other
        first, *others = family.predictions
        pairs = [(first, spacing) for spacing in SPACINGS]
        pairs += [(prediction, SPACINGS[0]) for prediction in others]
        plain = [{"prediction_type": p, "timestep_spacing": spacing} for p, spacing in pairs]
        plain = [{k: v for k, v in one.items() if k in family.fields} for one in plain]
        if family.fields == {"num_train_timesteps"}:  # IPNDM's only one but its levels
            plain.append({"num_train_timesteps": 60})
        for config in (*(c for i, c in enumerate(plain) if c not in plain[:i]), *VARIATIONS):
            asked = config.get("prediction_type", family.predictions[0])
            known = (*family.predictions, "flow_prediction")
            if set(config) <= family.fields and asked in known and family.takes(config):
                yield Case(family, tuple(config.items()))


CASES = tuple(_cases())


def cases(keep: Any = lambda case: True) -> pytest.MarkDecorator:
    """Parametrizes a test over the cases for which `keep` is true."""
    chosen = [case for case in CASES if keep(case)]
    assert chosen, "a matrix test that walks nothing"
    return pytest.mark.parametrize("case", chosen, ids=str)


def steps_of(case: Case) -> list[int]:
    """The numbers of steps that a case allows."""
    most = getattr(case.scheduler, FEWEST, case.get("num_train_timesteps"))
    return [n for n in STEPS if n <= most]


def end_level(case: Case, table: Any) -> tuple[float, float]:
    """(alpha, sigma) at the end of a run, from the config; or the last level, if a run stays there.

    Runs of the Adams methods stay at the last one of chosen noise levels but for "zero".
    """
    scheduler = case.scheduler
    if scheduler.ascends:
        return top_level(case, table)
    adams = isinstance(scheduler, AdamsMethod)
    final = getattr(scheduler, "final_sigmas_type", "sigma_min" if adams else "zero")
    if adams and final == "sigma_min" and chooses_sigmas(case):
        return tuple(table.level[-1])
    if not case.family.has_betas:
        last = ideal.process(case.family.cls) == "consistency"
        last |= getattr(scheduler, "final_sigmas_type", "zero") == "sigma_min"
        return 1.0, scheduler.sigma_min if last else 0.0
    bar = alpha_bar_of(case)
    if getattr(scheduler, "interpolation_type", "linear") == "log_linear":
        return 1.0, float(np.sqrt(1 / bar[0] - 1))  # log-spaced levels stop above zero
    if final == "sigma_min":
        sigma = float(np.sqrt(1 / bar[0] - 1))
        if getattr(scheduler, "use_flow_sigmas", False):
            return 1 - sigma, sigma
        alpha = 1.0 if case.family.kind == VE else float(np.sqrt(bar[0]))
        return alpha, alpha * sigma
    if getattr(scheduler, "set_alpha_to_one", True) and case.family.cls is not TCDScheduler:
        return 1.0, 0.0
    return float(np.sqrt(bar[0])), float(np.sqrt(1 - bar[0]))


def top_level(case: Case, table: Any) -> tuple[float, float]:
    """Where a run up ends: at the noisiest level, of DDIM's grid or of training."""
    if case.get("prediction_type") == "flow_prediction":
        sigma = 1 - 1 / case.get("num_train_timesteps")
        shift = case.get("flow_shift")
        sigma = shift * sigma / (1 + (shift - 1) * sigma)
        return 1 - sigma, sigma
    bar = alpha_bar_of(case)
    if isinstance(case.scheduler, dj.DDIMInverseScheduler):
        last = bar[int(table.timestep[-1])]
    else:
        log_snrs = np.log(bar / (1 - bar)) / 2
        last = bar[np.flatnonzero(log_snrs >= case.get("lambda_min_clipped"))[-1]]
    return float(np.sqrt(last)), float(np.sqrt(1 - last))


def chooses_sigmas(case: Case) -> bool:
    """Whether the config chooses the noise levels, not the timesteps."""
    kinds = ("karras", "exponential", "beta", "flow")
    return any(getattr(case.scheduler, f"use_{kind}_sigmas", False) for kind in kinds)


@functools.cache
def alpha_bar_of(case: Case) -> np.ndarray:
    """alpha_bar of a case, by the formulas of `reference`."""
    get = case.get
    betas = get("trained_betas") or reference.betas(
        get("beta_schedule"), get("num_train_timesteps"), get("beta_start"), get("beta_end")
    )
    bar = reference.alpha_bar(tuple(betas))
    return reference.zero_snr(bar) if dict(case.config).get("rescale_betas_zero_snr") else bar
