"""A whole run: what it leaves, its numbers, and what stops it."""

import json
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image
from training.runs import SMALL, run, with_loop

import ddpm_jax as dj
from ddpm_jax.hub import class_names
from ddpm_jax.training.objective import Objective
from ddpm_jax.training.optimizer import Optimizer
from ddpm_jax.training.run.checkpoint import Checkpoints
from ddpm_jax.training.run.export import export
from ddpm_jax.training.run.guards import TrainingError
from ddpm_jax.training.run.logs import Log, read_log
from ddpm_jax.training.run.plan import make_plan
from ddpm_jax.training.run.presets import PRESETS
from ddpm_jax.training.run.run import Run
from ddpm_jax.training.run.samples import Sampler
from ddpm_jax.training.run.settings import Settings
from weights_convert import convert

pytest.importorskip("grain", reason="needs grain: pip install -e '.[test]'")
pytest.importorskip("tensorboardX", reason="needs tensorboardX: pip install -e '.[test]'")

pytestmark = pytest.mark.usefixtures("kept_programs")


def test_what_a_run_leaves(whole: Path):
    names = {path.name for path in whole.iterdir()}
    assert names - {".lock"} == {
        "settings.json", "checkpoints", "log.jsonl", "tensorboard", "samples", "curve.png",
        "model_index.json", "unet", "scheduler",
    }  # fmt: skip
    assert Settings.load(whole / "settings.json") == SMALL
    assert [path.name for path in (whole / "samples").iterdir()] == ["000008.png"]
    with Image.open(whole / "curve.png") as curve:
        assert curve.size == (960, 540)
    assert list((whole / "tensorboard").glob("events.*"))


def test_the_log_has_every_number(whole: Path):
    lines = list(read_log(whole))
    assert [line["step"] for line in lines] == [2, 4, 4, 6, 8, 8]
    assert set(lines[0]) == {
        "step", "loss", "grad_norm", "learning_rate", "images_per_second", "input_share",
    }  # fmt: skip
    assert [line["learning_rate"] for line in lines if "loss" in line] == pytest.approx(
        [5e-4, 1e-3, 1e-3, 1e-3]
    )
    assert [line["step"] for line in lines if "held_out_loss" in line] == [4, 8]
    assert all(0 < line["loss"] < 3 for line in lines if "loss" in line)


def test_the_result_samples_like_any_model(whole: Path):
    pipe = dj.DiffusionPipeline.from_pretrained(whole)
    assert isinstance(pipe, dj.DDPMPipeline)
    assert pipe.unet.config.sample_size == 8
    assert pipe.scheduler.config.variance_type == "fixed_large"
    _, raw = dj.UNet2DModel.from_pretrained(whole, variant="non_ema")
    average, last = pipe.params["conv_in"]["kernel"], raw["conv_in"]["kernel"]
    assert not np.array_equal(average, last)
    np.testing.assert_allclose(average, last, atol=0.02)  # eight updates of at most 1e-3


@pytest.mark.slow
def test_several_updates_in_one_call_draw_the_same(whole: Path, tmp_path: Path):
    """XLA fuses two updates otherwise than one, so that bits differ."""
    assert run(tmp_path, with_loop(steps_per_call=2)) == (8, None, 1)
    for name, values in (("conv_in", "kernel"), ("conv_out", "bias")):
        ours, theirs = (
            dj.UNet2DModel.from_pretrained(out)[1][name][values] for out in (tmp_path, whole)
        )
        np.testing.assert_allclose(ours, theirs, atol=1e-4)  # an update changes up to 1e-3


@pytest.mark.slow  # fast: test_guards::test_numbers_that_are_none_are_named
def test_a_loss_that_is_no_number_stops_the_run(tmp_path: Path):
    hot = replace(SMALL, optimizer=Optimizer(learning_rate=1e30, warmup_steps=4, clip_norm=None))
    with pytest.raises(TrainingError) as stopped:
        run(tmp_path, with_loop(hot, save_every=1))
    message = str(stopped.value)
    assert message.startswith("update 3: ")  # the first update has learning rate 0
    assert "loss is nan" in message or "loss is inf" in message
    assert "(images " in message
    assert message.endswith(f"the last good checkpoint is {tmp_path / 'checkpoints' / '2'}")


@pytest.mark.slow  # fast: test_checkpoint::test_the_last_and_the_best_are_kept
def test_the_best_checkpoint_is_kept(tmp_path: Path):
    """The last checkpoint, of an update whose held-out loss nobody knows, is none of the best."""
    settings = with_loop(keep_last=1, keep_best=1, save_every=4, steps=14)
    run(tmp_path, settings)
    losses = {line["step"]: line["held_out_loss"] for line in read_log(tmp_path) if len(line) == 2}
    with Checkpoints(tmp_path / "checkpoints") as found:
        steps = set(found._manager.all_steps())
    assert set(losses) == {4, 8, 12}
    assert steps == {14, min(losses, key=losses.__getitem__)}


@pytest.mark.slow  # fast: test_the_log_has_every_number
def test_a_last_part_of_a_window_is_logged(tmp_path: Path):
    run(tmp_path, with_loop(log_every=5))
    assert [line["step"] for line in read_log(tmp_path) if "loss" in line] == [5, 8]


ODD = replace(PRESETS["tiny"], data=replace(SMALL.data, resolution=10))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (with_loop(steps=9, steps_per_call=2), "loop.steps must be a multiple"),
        (with_loop(keep_best=1, save_every=6), "save_every must be a multiple of eval_every"),
        (ODD, "images of 10x10 do not halve 2 times"),
    ],
)
def test_plans_that_do_not_fit(tmp_path: Path, settings: Settings, message: str):
    with pytest.raises(ValueError, match=message):
        make_plan(settings, tmp_path)
    assert not any(tmp_path.iterdir())


def test_a_batch_larger_than_the_data_is_a_warning(tmp_path: Path):
    few = with_loop(replace(SMALL, data=replace(SMALL.data, held_out=1790)), batch_size=8)
    with pytest.warns(UserWarning, match="batch_size is 8, but there are 7 images to train on"):
        make_plan(few, tmp_path)
    make_plan(with_loop(few, batch_size=7), tmp_path)  # a warning is an error


def test_a_grid_has_every_class_in_turn(tmp_path: Path):
    labelled = replace(SMALL, data=replace(SMALL.data, labels=True))
    sampler = Sampler(make_plan(with_loop(labelled, sample_num=12), tmp_path))
    assert sampler.inputs.conditions["context"].tolist() == [*range(10), 0, 1]


def test_missing_packages_are_named_before_anything_is_written(tmp_path: Path, monkeypatch):
    for package in ("grain", "tensorboardX"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match="needs grain, tensorboardX: pip install 'ddpm-jax"):
        make_plan(SMALL, tmp_path)


def test_what_tensorboard_reads(whole: Path, tmp_path: Path):
    """The numbers of the log, the grids, and from which step a resumed run hides the older ones."""
    events = board_events(whole)
    scalars = {
        (event.step, value.tag): value.simple_value
        for event in events
        for value in event.summary.value
        if value.HasField("simple_value")
    }
    logged = {
        (line["step"], name): value
        for line in read_log(whole)
        for name, value in line.items()
        if name != "step"
    }
    assert scalars == pytest.approx(logged)
    assert [e.step for e in events for v in e.summary.value if v.HasField("image")] == [8]
    with Log(tmp_path, step=5):
        pass
    assert [e.step for e in board_events(tmp_path) if e.HasField("session_log")] == [6]


def board_events(folder: Path) -> list[Any]:
    """What stands in TensorBoard's file: records of a length, its checksum, an event, another."""
    from tensorboardX.proto import event_pb2

    (file,) = (folder / "tensorboard").glob("events.*")
    content, events = file.read_bytes(), []
    while content:
        length = int.from_bytes(content[:8], "little")
        events.append(event_pb2.Event.FromString(content[12 : 12 + length]))
        content = content[16 + length :]
    return events


def test_log_lines_are_json_even_for_nan(tmp_path: Path):
    with Log(tmp_path) as log:
        log.write(1, {"loss": float("nan")})
    assert json.loads((tmp_path / "log.jsonl").read_text()) == {"step": 1, "loss": "nan"}
    with Log(tmp_path, step=0):  # what came after the step that a run goes on from is removed
        pass
    assert not list(read_log(tmp_path))


def test_sigterm_ends_a_run_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The update is finished, and there is a checkpoint of it and the result so far."""
    update = Run.update

    def signalled(self: Run) -> None:
        if self.step == 2:
            signal.raise_signal(signal.SIGTERM)
        update(self)

    monkeypatch.setattr(Run, "update", signalled)
    assert run(tmp_path, with_loop(save_every=1000)) == (3, signal.SIGTERM, 1)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["3"]
    assert (tmp_path / "model_index.json").exists()
    monkeypatch.undo()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_result_has_the_names_of_its_classes(tmp_path: Path):
    """Those of the data, and one for dropped labels; a conversion keeps them."""
    data = replace(SMALL.data, labels=True)
    plain = make_plan(replace(SMALL, data=data), tmp_path)
    free = replace(SMALL, data=data, objective=Objective(label_dropout=0.1))
    ten = tuple(str(i) for i in range(10))
    assert plain.classes == ten
    plan = make_plan(free, tmp_path)
    assert plan.classes == (*ten, "no class")
    assert make_plan(SMALL, tmp_path).classes is None
    params = plan.model.init_params(jax.random.key(0))
    export(tmp_path / "run", plan.model, plan.scheduler, params, params, plan.classes)
    convert(tmp_path / "run", tmp_path / "flax", to="flax")
    for folder in ("run", "flax"):
        assert class_names.read(tmp_path / folder) == dict(enumerate((*ten, "no class")))
