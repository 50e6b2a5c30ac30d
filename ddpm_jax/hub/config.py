"""Configs in diffusers' form: a read-only view, and the transfer rules.

These rules make a scheduler from the config of another class:

    field of the target, given explicitly      taken
    field of the target, left at its default   not taken: the target's own default applies
    field of a related scheduler               stored as hidden, so that it survives a round trip
    any other name                             dropped, with a warning

All fields of a file count as explicit. A config is refused if its class, or a field that the target
lacks, says that the network was trained on another forward process.
"""

import warnings
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

from weights_convert.names import OLD_SCHEDULER_FIELDS

# Fields of the schedulers that diffusers lets take each other's configs (`_compatibles`).
FAMILY_FIELDS = frozenset(
    {
        # the forward process and its grid
        "num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas",
        "prediction_type", "rescale_betas_zero_snr", "timestep_spacing", "steps_offset",
        # DDPM, DDIM, PNDM
        "variance_type", "clip_sample", "clip_sample_range", "thresholding",
        "dynamic_thresholding_ratio", "sample_max_value", "set_alpha_to_one", "skip_prk_steps",
        "eta",
        # sigmas
        "interpolation_type", "use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas",
        "sigma_min", "sigma_max", "timestep_type", "final_sigmas_type", "sigma_data",
        "sigma_schedule", "rho", "noise_sampler_seed",
        # multistep solvers
        "solver_order", "algorithm_type", "solver_type", "lower_order_final", "euler_at_final",
        "use_lu_lambdas", "lambda_min_clipped", "predict_x0", "disable_corrector", "solver_p",
        "predictor_order", "corrector_order", "tau_func",
        # flow matching
        "use_flow_sigmas", "flow_shift", "use_dynamic_shifting", "time_shift_type",
        "shift_terminal", "shift", "base_shift", "max_shift", "base_image_seq_len",
        "max_image_seq_len", "invert_sigmas", "stochastic_sampling",
        # distilled networks
        "original_inference_steps", "timestep_scaling",
    }
)  # fmt: skip

# Schedulers with the forward process of Ho et al. 2020, arXiv:2006.11239: x = alpha x0 + sigma eps,
# with levels from betas, on numbered timesteps. Any of them samples a network of any other.
FAMILY = frozenset(
    {
        "DDIMInverseScheduler", "DDIMParallelScheduler", "DDIMScheduler", "DDPMParallelScheduler",
        "DDPMScheduler", "DEISMultistepScheduler", "DPMSolverMultistepInverseScheduler",
        "DPMSolverMultistepScheduler", "DPMSolverSDEScheduler", "DPMSolverSinglestepScheduler",
        "EulerAncestralDiscreteScheduler", "EulerDiscreteScheduler", "HeunDiscreteScheduler",
        "KDPM2AncestralDiscreteScheduler", "KDPM2DiscreteScheduler", "LCMScheduler",
        "LMSDiscreteScheduler", "PNDMScheduler", "RePaintScheduler", "SASolverScheduler",
        "TCDScheduler", "UniPCMultistepScheduler",
    }
)  # fmt: skip

# Schedulers with other forward processes, or other readings of the network: each group shares one.
EDM_FAMILY = frozenset({"EDMEulerScheduler", "EDMDPMSolverMultistepScheduler"})
FLOW_FAMILY = frozenset(
    {
        "FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler",
        "FlowMatchLCMScheduler",
    }
)  # fmt: skip
CM_FAMILY = frozenset({"CMStochasticIterativeScheduler"})
SCORE_FAMILY = frozenset({"ScoreSdeVeScheduler"})
KARRAS_FAMILY = frozenset({"KarrasVeScheduler"})
IPNDM_FAMILY = frozenset({"IPNDMScheduler"})
FAMILIES = (
    FAMILY, EDM_FAMILY, FLOW_FAMILY, CM_FAMILY, SCORE_FAMILY, KARRAS_FAMILY, IPNDM_FAMILY,
)  # fmt: skip

# Fields that change the network's inputs or levels, with the value that every scheduler supports.
# A scheduler without the field cannot sample a network that was trained with another value.
TRAINED_WITH: Mapping[str, Any] = {
    "prediction_type": "epsilon",
    "rescale_betas_zero_snr": False,
    "timestep_type": "discrete",
    "use_flow_sigmas": False,
    "invert_sigmas": False,
}


class Config(Mapping[str, Any]):
    """A read-only mapping with attribute access.

    Equality and hash depend on the class name and the values. Only the transfer rules use `hidden`
    and `explicit`.

    Attributes:
        hidden: fields of related classes that this class lacks.
        explicit: names of the fields that were given explicitly.

    >>> import ddpm_jax as dj
    >>> config = dj.DDIMScheduler(steps_offset=1).config
    >>> config.steps_offset, config["clip_sample"]
    (1, True)
    """

    __slots__ = ("_values", "class_name", "explicit", "hidden")

    def __init__(
        self,
        values: Mapping[str, Any],
        *,
        class_name: str | None = None,
        hidden: Mapping[str, Any] | None = None,
        explicit: Iterable[str] | None = None,
    ):
        write = object.__setattr__
        write(self, "class_name", class_name)
        write(self, "_values", dict(values))
        write(self, "hidden", dict(hidden or {}))
        write(self, "explicit", frozenset(values if explicit is None else explicit))

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self._values:
            raise AttributeError(f"this config has no {name!r}; it has {', '.join(self._values)}")
        return self._values[name]

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError("a config is read-only: make a new one with from_config(config, ...)")

    def __reduce__(self) -> tuple[Any, ...]:
        others = {name: getattr(self, name) for name in ("class_name", "hidden", "explicit")}
        return partial(Config, **others), (self._values,)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Config):
            return dict(self) == other if isinstance(other, Mapping) else NotImplemented
        return (self.class_name, self._values) == (other.class_name, other._values)

    def __hash__(self) -> int:
        return hash((self.class_name, tuple(self._values.items())))

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in self._values.items())
        return f"{self.class_name or type(self).__name__}({fields})"


class Transfer(NamedTuple):
    """A config, split for a target class."""

    fields: dict[str, Any]
    hidden: dict[str, Any]


def transfer(
    config: Mapping[str, Any],
    accepted: Iterable[str],
    target: str,
    family: frozenset[str] = FAMILY,
) -> Transfer:
    """Splits a config by the transfer rules of this module.

    Args:
        config: a `Config`, a JSON file's mapping, or a config object of diffusers.
        accepted: the target's field names.
        target: the target's name, for messages.
        family: the names of the classes with the target's forward process.

    Raises:
        ValueError: it is not a config, or the config of a network that the target cannot sample.
    """
    if not isinstance(config, Mapping):
        raise ValueError(
            f"{target} needs a config: a mapping of field names, got {type(config).__name__}"
        )
    if not isinstance(config, Config):
        check_family(config.get("_class_name"), target, family)
    elif any(config.class_name in known for known in FAMILIES):  # not a class of the user's own
        check_family(config.class_name, target, family)
    given = {OLD_SCHEDULER_FIELDS.get(name, name): value for name, value in _given(config).items()}
    if "predict_epsilon" in given:  # before diffusers 0.8; False meant that the output is x0
        predicts_eps = given.pop("predict_epsilon")
        given.setdefault("prediction_type", "epsilon" if predicts_eps else "sample")
    accepted = set(accepted)
    fields = {name: value for name, value in given.items() if name in accepted}
    rest = {name: value for name, value in given.items() if name not in accepted}
    hidden = {name: value for name, value in rest.items() if name in FAMILY_FIELDS}
    differing = [
        f"{name} {rest[name]!r}"
        for name, common in TRAINED_WITH.items()
        if rest.get(name) not in (None, common)
    ]
    if differing:
        raise ValueError(
            f"{target} has no {' and '.join(differing)}, with which this network was trained: "
            "choose a scheduler that has the field"
        )
    dropped = sorted(set(rest) - set(hidden))
    if dropped:
        warnings.warn(
            f"{target} has no field {', '.join(dropped)}: dropped from its config", stacklevel=3
        )
    return Transfer(fields, hidden)


def check_family(found: Any, target: str, family: frozenset[str] = FAMILY) -> None:
    """Checks that a network which was trained under one scheduler can be sampled by another.

    Args:
        found: the class name in a file: a text, [file, class] of custom code, or None.
        target: the name of our class.
        family: the names of the classes with its forward process.

    Raises:
        ValueError: the class has another forward process.
    """
    name = found[-1] if isinstance(found, list) and found else found
    if name is not None and str(name) not in family:
        raise ValueError(
            f"the scheduler is a {name}, in whose place {target} cannot sample: it has another "
            "forward process"
        )


def _given(config: Mapping[str, Any]) -> dict[str, Any]:
    """The explicit fields of a config, by name, without private names."""
    if isinstance(config, Config):
        return {name: config[name] for name in config if name in config.explicit} | config.hidden
    defaulted = set(config.get("_use_default_values") or ())
    return {
        name: value
        for name, value in config.items()
        if not name.startswith("_") and name not in defaulted
    }
