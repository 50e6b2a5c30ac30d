"""Settings as files, presets, and the errors of wrong ones."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ddpm_jax.models import UNet2DModel
from ddpm_jax.training.optimizer import Optimizer
from ddpm_jax.training.run.plan import check_same
from ddpm_jax.training.run.presets import PRESETS
from ddpm_jax.training.run.settings import Diffusion, Loop, Model, Settings


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_a_file(tmp_path: Path, name: str):
    PRESETS[name].save(tmp_path / "settings.json")
    assert Settings.load(tmp_path / "settings.json") == PRESETS[name]


@pytest.mark.parametrize(
    ("name", "shape", "params"),
    [("cifar10", (32, 32, 3), 35_746_307), ("celebahq256", (256, 256, 3), 113_673_219)],
)
def test_the_papers_networks(name: str, shape: tuple[int, int, int], params: int):
    """Their sizes are those of google/ddpm-cifar10-32 and google/ddpm-celebahq-256."""
    preset = PRESETS[name]
    model = UNet2DModel(**preset.model.config(shape, None, preset.diffusion))
    import jax

    assert sum(leaf.size for leaf in jax.tree.leaves(model.shapes())) == params


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


def test_loops_with_faults_tell_all():
    with pytest.raises(ValueError, match=r"steps must be .* seed must be below 2\*\*32") as raised:
        Loop(steps=-1, batch_size=6, accumulate=4, seed=2**32)
    assert "accumulate must divide batch_size, got 4 and 6" in str(raised.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Optimizer(learning_rate=math.inf), "learning_rate must be a finite number"),
        (lambda: Optimizer(learning_rate=math.nan), "learning_rate must be a finite number"),
        (lambda: Loop(divergence=0.5), "divergence must be 0, or above 1, got 0.5"),
        (lambda: Diffusion(beta_start=0.02, beta_end=1e-4), "the first not above the second"),
        (lambda: Model(layers_per_block=1001), "layers_per_block must be at most 1000, got 1001"),
        (lambda: Diffusion(beta_end=1.0), r"must lie in \(0, 1\)"),
    ],
)
def test_numbers_that_train_nothing(make: Callable[[], object], message: str):
    with pytest.raises(ValueError, match=message):
        make()


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
