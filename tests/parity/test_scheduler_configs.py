"""Configs between the two libraries: files both ways, and the transfer rules side by side."""

import dataclasses
import functools
import itertools
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ddpm_jax as dj
from ddpm_jax.hub.config import TRAINED_WITH
from tests.parity import lifted

# diffusers hands torch tensors to numpy's functions in ways that numpy 2 will drop
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning"),
]

NAMES = lifted.NAMES

PLAIN = {"timestep_spacing": "leading", "beta_schedule": "scaled_linear"}
EXPLICIT: dict[str, dict[str, Any]] = dict.fromkeys(NAMES, PLAIN) | {
    "DDPMScheduler": {"variance_type": "fixed_large", "clip_sample_range": 2.0, "beta_end": 0.03},
    "DDIMScheduler": {"set_alpha_to_one": False, "timestep_spacing": "trailing"},
    "PNDMScheduler": {"skip_prk_steps": True, "prediction_type": "v_prediction"},
    "EulerDiscreteScheduler": {"use_karras_sigmas": True, "timestep_spacing": "leading"},
    "EulerAncestralDiscreteScheduler": {"steps_offset": 1, "beta_schedule": "scaled_linear"},
    "DPMSolverMultistepScheduler": {"algorithm_type": "sde-dpmsolver++", "solver_type": "heun"},
    "EDMEulerScheduler": {"sigma_max": 50.0, "sigma_data": 1.0, "prediction_type": "v_prediction"},
    "EDMDPMSolverMultistepScheduler": {"solver_order": 3, "algorithm_type": "sde-dpmsolver++"},
    "CMStochasticIterativeScheduler": {"num_train_timesteps": 18, "clip_denoised": False},
    "FlowMatchEulerDiscreteScheduler": {"shift": 3.0, "use_dynamic_shifting": True},
    "FlowMatchHeunDiscreteScheduler": {"shift": 3.0},
    "ScoreSdeVeScheduler": {"snr": 0.17, "sigma_max": 378.0},
    "KarrasVeScheduler": {"s_churn": 0.0, "sigma_max": 50.0},
    "DPMSolverSinglestepScheduler": {"solver_order": 3, "final_sigmas_type": "sigma_min"},
    "RePaintScheduler": {"eta": 0.5, "clip_sample": False},
    "DPMSolverSDEScheduler": {"use_karras_sigmas": True, "steps_offset": 1},
    "LCMScheduler": {"original_inference_steps": 25, "clip_sample": True},
    "TCDScheduler": {"original_inference_steps": 25, "beta_schedule": "linear"},
    "DDIMInverseScheduler": {"set_alpha_to_one": False, "timestep_spacing": "trailing"},
    "DPMSolverMultistepInverseScheduler": {"solver_order": 3, "solver_type": "heun"},
    "IPNDMScheduler": {"num_train_timesteps": 500, "trained_betas": [0.9, 0.5, 0.1, 0.0]},
    "SASolverScheduler": {"predictor_order": 3, "thresholding": True, "use_karras_sigmas": True},
    "DEISMultistepScheduler": {"solver_order": 3, "lower_order_final": False},
    "UniPCMultistepScheduler": {"solver_type": "bh1", "disable_corrector": [0, 1]},
}


# Targets that refuse the form of the source's solver, in both libraries; on the way up, noise is
# NaN in diffusers.
OTHER_FORMS = {
    ("DPMSolverMultistepScheduler", "DPMSolverMultistepInverseScheduler"),
    ("DPMSolverMultistepScheduler", "DEISMultistepScheduler"),
    ("DPMSolverMultistepScheduler", "SASolverScheduler"),
}


@pytest.fixture(autouse=True)
def quick() -> Iterator[None]:
    with lifted.made_quickly():
        yield


def is_refused(source: str, target: str) -> bool:
    """Whether the target has another forward process (tests/schedulers/test_without_betas.py), or
    lacks what the source's network was trained with: diffusers takes it.
    """
    if (source, target) in OTHER_FORMS:
        return True
    ours = getattr(dj, target)
    own = {field.name for field in dataclasses.fields(ours)}
    lacks = set(EXPLICIT[source]) & set(TRAINED_WITH) - own
    return getattr(dj, source).family != ours.family or bool(lacks)


def targets_of(source: str) -> list[str]:
    return [target for target in NAMES if not is_refused(source, target)]


def theirs(name: str) -> Any:
    return getattr(lifted.MODULES[name], name)


def values(config: Any, names: Any) -> dict[str, Any]:
    """With lists as the tuples that they are here."""
    found = {name: config[name] for name in names}
    return {k: tuple(v) if isinstance(v, list) else v for k, v in found.items()}


@functools.cache
def fields_of(name: str) -> list[str]:
    return [key for key in theirs(name)().config if not key.startswith("_")]


@pytest.mark.parametrize("name", NAMES)
def test_fields_and_defaults_are_those_of_diffusers(name: str) -> None:
    ours = dict(getattr(dj, name)().config)
    assert ours == values(theirs(name)().config, fields_of(name))


@pytest.mark.parametrize("name", NAMES)
def test_diffusers_reads_what_we_write(name: str, tmp_path: Path) -> None:
    ours = getattr(dj, name)(**EXPLICIT[name])
    ours.save_pretrained(tmp_path)
    read = theirs(name).from_pretrained(tmp_path)
    assert values(read.config, fields_of(name)) == dict(ours.config)
    content = json.loads((tmp_path / "scheduler_config.json").read_text())
    assert content["_class_name"] == name


@pytest.mark.parametrize("name", NAMES)
def test_we_read_what_diffusers_writes(name: str, tmp_path: Path) -> None:
    written = theirs(name)(**EXPLICIT[name])
    written.save_pretrained(tmp_path)
    ours = getattr(dj, name).from_pretrained(tmp_path)
    assert dict(ours.config) == values(written.config, fields_of(name))
    assert ours == getattr(dj, name)(**EXPLICIT[name])


@pytest.mark.parametrize("source", NAMES)
@pytest.mark.parametrize("given", [False, True], ids=["defaults", "explicit"])
def test_transfer_is_that_of_diffusers(source: str, given: bool) -> None:
    fields = EXPLICIT[source] if given else {}
    their_source, our_source = theirs(source)(**fields), getattr(dj, source)(**fields)
    for target in targets_of(source):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = theirs(target).from_config(their_source.config)
            back = theirs(source).from_config(expected.config)
        ours = getattr(dj, target).from_config(our_source.config)
        assert dict(ours.config) == values(expected.config, fields_of(target)), target
        # A -> B -> A
        returned = getattr(dj, source).from_config(ours.config)
        assert dict(returned.config) == values(back.config, fields_of(source)), target
        # and straight from diffusers' own config object
        mixed = getattr(dj, target).from_config(their_source.config)
        assert dict(mixed.config) == dict(ours.config), target


# diffusers cannot read their files: docs/differences.md, "a config of DEIS loads"; and neither
# library those of SA-Solver, whose algorithm_type has other values.
SOLVERS = {
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "DPMSolverMultistepInverseScheduler",
    "DEISMultistepScheduler",
}
UNREAD = {
    *itertools.product(["DEISMultistepScheduler"], SOLVERS),
    *itertools.product(["SASolverScheduler"], SOLVERS),
    *itertools.product(SOLVERS, ["SASolverScheduler"]),
}


@pytest.mark.parametrize("source", NAMES)
def test_transfer_by_file(source: str, tmp_path: Path) -> None:
    """A file counts as explicit throughout, in both libraries; but null is a default here."""
    theirs(source)(**EXPLICIT[source]).save_pretrained(tmp_path)
    for target in targets_of(source):
        if target == source or (source, target) in UNREAD:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = values(theirs(target).from_pretrained(tmp_path).config, fields_of(target))
        ours = getattr(dj, target).from_pretrained(tmp_path)
        stated = {name: value for name, value in expected.items() if value is not None}
        assert values(ours.config, stated) == stated, target


@pytest.mark.parametrize(
    "name",
    [n for n in NAMES if n.startswith("DPMSolver") and hasattr(getattr(dj, n), "algorithm_type")],
)
def test_names_of_other_solvers_are_rewritten_as_in_diffusers(name: str) -> None:
    for kind in ("logrho", "bh1", "bh2"):
        fields = {"algorithm_type": "deis", "solver_type": kind, "final_sigmas_type": "sigma_min"}
        fields = {k: v for k, v in fields.items() if k in fields_of(name)}
        ours, written = getattr(dj, name)(**fields), theirs(name)(**fields)
        assert dict(ours.config) == values(written.config, fields_of(name))
