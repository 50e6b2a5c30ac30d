"""Configs: read-only, hashable, saved and loaded, and transferred between schedulers."""

import copy
import dataclasses
import json
import pickle
from pathlib import Path
from typing import Any

import pytest

import ddpm_jax as dj
from tests.schedulers.matrix import Case, cases

DIGITS = {
    "_class_name": "DDPMScheduler",
    "_diffusers_version": "0.42.1",
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "beta_start": 0.0001,
    "clip_sample": True,
    "clip_sample_range": 1.0,
    "dynamic_thresholding_ratio": 0.995,
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "rescale_betas_zero_snr": False,
    "sample_max_value": 1.0,
    "steps_offset": 0,
    "thresholding": False,
    "timestep_spacing": "leading",
    "trained_betas": None,
    "variance_type": "fixed_small",
}


@cases()
def test_round_trips(case: Case) -> None:
    """Through a config, a file, a copy and a pickle; equal schedulers hash alike."""
    scheduler = case.scheduler
    cls = case.family.cls
    copies = [
        cls.from_config(scheduler.config),
        cls(**dict(scheduler.config)),
        copy.deepcopy(scheduler),
        pickle.loads(pickle.dumps(scheduler)),
    ]
    for other in copies:
        assert other == scheduler
        assert hash(other) == hash(scheduler)
        assert other.config == scheduler.config
        assert hash(other.config) == hash(scheduler.config)


@cases(lambda case: "tau_func" not in dict(case.config))
def test_files(case: Case, tmp_path: Path) -> None:
    scheduler = case.scheduler
    scheduler.save_pretrained(tmp_path / "scheduler")
    content = json.loads((tmp_path / "scheduler" / "scheduler_config.json").read_text())
    assert content["_class_name"] == case.family.cls.__name__
    stored = {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in scheduler.config.items()
    }
    assert {key: content[key] for key in scheduler.config} == stored
    # the component's own folder, and the folder above it
    assert case.family.cls.from_pretrained(tmp_path / "scheduler") == scheduler
    assert case.family.cls.from_pretrained(tmp_path) == scheduler
    assert case.family.cls.from_pretrained(tmp_path, subfolder="scheduler") == scheduler


def test_config_is_a_read_only_mapping_with_attributes() -> None:
    config = dj.DDIMScheduler(clip_sample_range=2.0).config
    assert config["clip_sample_range"] == config.clip_sample_range == 2.0
    assert set(config) == {field.name for field in dataclasses.fields(dj.DDIMScheduler)}
    with pytest.raises(AttributeError):
        config.clip_sample_range = 1.0
    with pytest.raises(TypeError):
        config["clip_sample_range"] = 1.0
    with pytest.raises(AttributeError):
        _ = config.variance_type
    with pytest.raises(KeyError):
        config["variance_type"]


def test_a_scheduler_is_frozen() -> None:
    scheduler = dj.DDIMScheduler()
    with pytest.raises(dataclasses.FrozenInstanceError):
        scheduler.clip_sample = False
    assert len({scheduler, dj.DDIMScheduler(), dj.DDIMScheduler(clip_sample=False)}) == 2


def test_explicit_and_hidden_fields_do_not_affect_equality() -> None:
    hidden = dj.DDPMScheduler(variance_type="fixed_large").config
    for one, other in (
        (dj.DDPMScheduler(beta_start=1e-4), dj.DDPMScheduler()),
        (dj.EulerDiscreteScheduler.from_config(hidden), dj.EulerDiscreteScheduler()),
    ):
        assert one == other
        assert hash(one) == hash(other)
        assert one.config == other.config


# Transfer.


def test_defaults_are_not_carried_over() -> None:
    """DDPM's own default spacing is leading, Euler's linspace."""
    euler = dj.EulerDiscreteScheduler.from_config(dj.DDPMScheduler().config)
    assert euler.timestep_spacing == "linspace"
    explicit = dj.DDPMScheduler(timestep_spacing="leading")
    assert dj.EulerDiscreteScheduler.from_config(explicit.config).timestep_spacing == "leading"


def test_a_file_counts_as_explicit(tmp_path: Path) -> None:
    assert dj.EulerDiscreteScheduler.from_config(DIGITS).timestep_spacing == "leading"
    dj.DDPMScheduler().save_pretrained(tmp_path)
    assert dj.EulerDiscreteScheduler.from_pretrained(tmp_path).timestep_spacing == "leading"


def test_hidden_fields_survive_a_round_trip(tmp_path: Path) -> None:
    """A -> B -> A, where B lacks some fields of A; through a file of B's as well."""
    start = dj.DDPMScheduler(variance_type="fixed_large", clip_sample=False, steps_offset=1)
    euler = dj.EulerDiscreteScheduler.from_config(start.config)
    assert "variance_type" not in dict(euler.config)
    assert dj.DDPMScheduler.from_config(euler.config) == start
    pndm = dj.PNDMScheduler.from_config(euler.config)
    assert dj.DDPMScheduler.from_config(pndm.config) == start
    pndm.save_pretrained(tmp_path)
    assert dj.DDPMScheduler.from_pretrained(tmp_path).variance_type == "fixed_large"


def test_explicit_fields_stay_explicit() -> None:
    """A field given in A and stored by B is explicit for C."""
    start = dj.DDPMScheduler(timestep_spacing="leading")
    pndm = dj.PNDMScheduler.from_config(start.config)
    assert dj.EulerDiscreteScheduler.from_config(pndm.config).timestep_spacing == "leading"


def test_overrides_have_priority_and_are_checked_by_name() -> None:
    config = dj.DDPMScheduler(timestep_spacing="leading").config
    overrides = {"timestep_spacing": "trailing", "use_karras_sigmas": True}
    euler = dj.EulerDiscreteScheduler.from_config(config, **overrides)
    assert (euler.timestep_spacing, euler.use_karras_sigmas) == ("trailing", True)
    with pytest.raises(ValueError, match="variance_type"):
        dj.EulerDiscreteScheduler.from_config(config, variance_type="learned")


def test_unknown_fields_are_warned_about() -> None:
    """But for private ones, and that of the version."""
    assert dj.DDPMScheduler.from_config(DIGITS) == dj.DDPMScheduler()
    with pytest.warns(UserWarning, match="set_format"):
        scheduler = dj.DDPMScheduler.from_config(DIGITS | {"set_format": "pt"})
    assert scheduler == dj.DDPMScheduler()


@pytest.mark.parametrize(("predicts_eps", "prediction"), [(True, "epsilon"), (False, "sample")])
def test_the_name_before_prediction_type(predicts_eps: bool, prediction: str) -> None:
    old = {key: value for key, value in DIGITS.items() if key != "prediction_type"}
    scheduler = dj.DDPMScheduler.from_config(old | {"predict_epsilon": predicts_eps})
    assert scheduler.prediction_type == prediction


def test_a_wrong_value_in_a_file_is_refused() -> None:
    with pytest.raises((ValueError, TypeError), match="beta_schedule"):
        dj.DDPMScheduler.from_config(DIGITS | {"beta_schedule": "quartic"})


def test_betas_from_a_file() -> None:
    """JSON holds a list."""
    betas: list[Any] = [0.1, 0.2, 0.5]
    config = DIGITS | {"trained_betas": betas, "num_train_timesteps": 3}
    assert dj.DDIMScheduler.from_config(config).noise_schedule.alpha_bar[2] == pytest.approx(0.36)


@pytest.mark.parametrize(("content", "named"), [(None, "exist"), ("{", "JSON"), ("[1]", "object")])
def test_bad_files(content: str | None, named: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "scheduler_config.json").write_text(content)
    with pytest.raises(ValueError, match="scheduler"):
        dj.DDPMScheduler.from_pretrained(tmp_path)


def test_the_bundled_scheduler() -> None:
    assert dj.DDIMScheduler.from_pretrained("digits").config.clip_sample is True
    assert dj.DDPMScheduler.from_pretrained("digits") == dj.DDPMScheduler()
