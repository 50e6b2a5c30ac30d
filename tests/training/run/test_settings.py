"""Settings as files, presets, and the errors of wrong ones."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ddpm_jax.models import UNet2DModel
from ddpm_jax.training.data import Data
from ddpm_jax.training.ema import Ema
from ddpm_jax.training.group import Group
from ddpm_jax.training.objective import Objective
from ddpm_jax.training.optimizer import Optimizer
from ddpm_jax.training.run.plan import check_same
from ddpm_jax.training.run.presets import PRESETS
from ddpm_jax.training.run.settings import Diffusion, Loop, Model, Settings
from tests.models.nets import CAT, CIFAR10


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_a_file(tmp_path: Path, name: str):
    PRESETS[name].save(tmp_path / "settings.json")
    assert Settings.load(tmp_path / "settings.json") == PRESETS[name]


@pytest.mark.parametrize(("name", "published"), [("cifar10", CIFAR10), ("celebahq256", CAT)])
def test_the_papers_networks(name: str, published: dict[str, Any]):
    """Those of google/ddpm-cifar10-32 and google/ddpm-celebahq-256, but for dropout and heads."""
    preset, theirs = PRESETS[name], UNet2DModel(**published).config
    shape = (theirs.sample_size, theirs.sample_size, 3)
    ours = UNet2DModel(**preset.model.config(shape, None, preset.diffusion)).config
    others = {field for field in theirs if ours[field] != theirs[field]}
    assert others <= {"dropout", "attention_head_dim"}
    assert ours.attention_head_dim is None  # one head, as in the paper


def test_the_papers_settings():
    """Ho et al. 2020, appendix B."""
    cifar, faces = PRESETS["cifar10"], PRESETS["celebahq256"]
    assert (cifar.optimizer.learning_rate, faces.optimizer.learning_rate) == (2e-4, 2e-5)
    assert (cifar.loop.batch_size, faces.loop.batch_size) == (128, 64)
    assert (cifar.model.dropout, faces.model.dropout) == (0.1, 0.0)
    for preset in (cifar, faces):
        assert preset.optimizer.warmup_steps == 5000
        assert preset.optimizer.clip_norm == 1
        assert (preset.ema.decay, preset.ema.power) == (0.9999, None)
        assert preset.data.flip
    assert cifar.diffusion.variance_type == "fixed_large"


@pytest.mark.usefixtures("as_users_run")
def test_a_file_with_faults(tmp_path: Path):
    path = tmp_path / "settings.json"
    for encoding in ("utf-8", "utf-8-sig"):  # the second as editors of Windows save it
        path.write_text(json.dumps({"loop": {"steps": 5}}), encoding=encoding)
        assert Settings.load(path) == Settings(loop=Loop(steps=5))
    for content, message in (
        ({"lop": {}}, "no group is called lop; there are data, model,"),
        ({"loop": {"step": 5}}, "no field of loop is called step; there are steps,"),
        ({"loop": 5}, "loop must be an object, got 5"),
        ({"loop": {"steps": 0}}, "Loop: steps must be at least 1, got 0"),
        ({"loop": {"steps": True}}, "Loop: steps must be a whole number, got True"),
        ({"loop": {"steps": "7"}}, "steps must be a whole number, got '7'"),
        ({"loop": {"batch_size": 2.5}}, "batch_size must be a whole number, got 2.5"),
        ({"data": {"flip": "yes"}}, "Data: flip must be true or false, got 'yes'"),
        ({"data": {"crop": "left"}}, "crop must be one of center, random, none, .* got 'left'"),
        ({"data": {"resolution": "8"}}, "resolution must be a whole number or None, got '8'"),
        ({"optimizer": {"clip_norm": "1"}}, "clip_norm must be a finite number or None, got '1'"),
        ({"ema": {"decay": None}}, "Ema: decay must be a finite number, got None"),
        ({"model": {"block_out_channels": 8}}, "must be a list, of each a whole number, got 8"),
        ({"model": {"block_out_channels": [8, "9"]}}, r"a whole number, got \(8, '9'\)"),
    ):
        path.write_text(json.dumps(content))
        with pytest.raises(ValueError, match=message) as raised:
            Settings.load(path)
        assert str(path) in str(raised.value)


@pytest.mark.usefixtures("as_users_run")
@pytest.mark.parametrize(
    ("group", "fields"),
    [
        (Optimizer, {"learning_rate": 0.0, "eps": -1.0, "clip_norm": 0.0, "warmup_steps": -1}),
        (Optimizer, {"weight_decay": -1.0, "beta1": 1.0, "beta2": -0.1}),
        (Optimizer, {"learning_rate": math.inf, "warmup_steps": 1.5, "decay": "step"}),
        (Ema, {"decay": 1.0, "power": 0.0, "inv_gamma": 0.0}),
        (Objective, {"min_snr_gamma": 0.0, "p2_k": 0.0, "p2_gamma": -1.0, "label_dropout": 1.0}),
        (Objective, {"loss": "mse", "weighting": "x0", "vlb_weight": math.nan}),
        (Loop, dict.fromkeys(("steps", "batch_size", "accumulate", "steps_per_call", "fsdp"), 0)),
        (Loop, dict.fromkeys(("log_every", "save_every", "keep_last", "eval_every"), 0)),
        (Loop, dict.fromkeys(("sample_num", "sample_steps"), 0)),
        (Loop, dict.fromkeys(("seed", "keep_best", "sample_every", "profile", "divergence"), -1)),
        (Data, {"resolution": 0, "channels": -1, "skip_unreadable": -1, "workers": -1}),
        (Data, {"resolution": 2**14 + 1, "workers": 1001, "name": "", "label_column": "y"}),
        (Data, {"crop": "middle", "flip": 1, "held_out": math.nan}),
    ],
)
def test_every_wrong_field_is_named(group: type[Group], fields: dict[str, Any]):
    with pytest.raises(ValueError) as raised:
        group(**fields)
    faults = str(raised.value).removeprefix(f"{group.__name__}: ").split("; ")
    assert {fault.partition(" ")[0] for fault in faults} == set(fields)


@pytest.mark.parametrize(
    ("group", "fields", "message"),
    [
        (Ema, {"power": 0.0}, "power must be above 0, got 0.0"),
        (Optimizer, {"beta1": 1.0}, r"beta1 must lie in \[0, 1\), got 1.0"),
        (Objective, {"loss": "vlb", "weighting": "snr"}, "takes no weighting, got 'snr'"),
        (Loop, {"seed": 2**32}, r"seed must be below 2\*\*32, got 4294967296"),
        (Loop, {"batch_size": 6, "accumulate": 4}, "must divide batch_size, got 4 and 6"),
        (Loop, {"divergence": 0.5}, "divergence must be 0, or above 1, got 0.5"),
        (Diffusion, {"beta_start": 0.02, "beta_end": 1e-4}, "the first not above the second"),
        (Diffusion, {"beta_end": 1.0}, r"must lie in \(0, 1\)"),
        (Diffusion, {"num_train_timesteps": 0}, "num_train_timesteps must be at least 1, got 0"),
        (Model, {"layers_per_block": 1001}, "layers_per_block must be at most 1000, got 1001"),
        (Data, {"crop": "random"}, "crop='random' needs a resolution"),
        (Data, {"held_out": 1.5}, r"a fraction in \[0, 1\) or a whole number of images, got 1.5"),
        (Data, {"held_out": -0.1}, "held_out must be"),
    ],
)
def test_numbers_that_train_nothing(group: type[Group], fields: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        group(**fields)


def test_what_a_resumed_run_may_change():
    before = Settings()
    check_same(before, replace(before, loop=replace(before.loop, steps=5, save_every=1)))
    other = replace(
        before,
        loop=replace(before.loop, batch_size=64),
        diffusion=Diffusion(prediction_type="v_prediction"),
    )
    with pytest.raises(ValueError) as raised:
        check_same(before, other)
    assert "loop.batch_size was 128, now 64" in str(raised.value)
    assert "diffusion.prediction_type was epsilon, now v_prediction" in str(raised.value)
