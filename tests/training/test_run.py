"""A whole run: what it leaves, how it goes on, and what stops it."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from training.runs import SMALL, run, weights, with_loop

import ddpm_jax as dj
from ddpm_jax import class_names
from ddpm_jax.training.checkpoint import Checkpoints
from ddpm_jax.training.data import Data
from ddpm_jax.training.devices import Devices
from ddpm_jax.training.lock import locked
from ddpm_jax.training.logs import Log, read_log
from ddpm_jax.training.objective import Objective
from ddpm_jax.training.optimizer import Optimizer
from ddpm_jax.training.plan import make_plan
from ddpm_jax.training.presets import PRESETS
from ddpm_jax.training.run import Run
from ddpm_jax.training.settings import Settings
from ddpm_jax.training.watch import TrainingError
from weights_convert import convert

pytest.importorskip("grain", reason="needs grain: pip install -e '.[test]'")
pytest.importorskip("tensorboardX", reason="needs tensorboardX: pip install -e '.[test]'")

pytestmark = pytest.mark.usefixtures("kept_programs")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    outcome = run(out)
    assert outcome == (8, None, 1)  # one compilation of the step
    return out


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


@pytest.mark.parametrize("at", [3, 6])
def test_a_killed_run_goes_on_to_the_same_bits(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
):
    """Killed at update 3 there is no checkpoint yet, at 6 there is one of update 4."""
    update = Run._update

    def killed(self: Run) -> None:
        if self.step == at:
            raise MemoryError("killed")
        update(self)

    monkeypatch.setattr(Run, "_update", killed)
    with pytest.raises(MemoryError):
        run(tmp_path)
    monkeypatch.undo()
    (tmp_path / "checkpoints" / "7.orbax-checkpoint-tmp-1").mkdir()  # as a kill leaves it
    run(tmp_path, resume=True)
    assert weights(tmp_path) == weights(whole)
    assert untimed(tmp_path) == untimed(whole)


def test_a_resumed_run_compiles_the_program_of_a_fresh_one(whole: Path, tmp_path: Path):
    """jax compiles otherwise for arrays that were put somewhere than for those that were not."""
    out = shutil.copytree(whole, tmp_path / "run")
    programs: list[str] = []
    with Checkpoints(out / "checkpoints") as saved:
        for resume in (False, True):
            one = Run(make_plan(SMALL, out), saved, Devices(SMALL.loop), progress=False)
            one.begin(resume)
            assert one.step == (8 if resume else 0)
            assert one.log is not None
            with one.log:
                batch = one.devices.place_batch({"image": np.zeros((8, 8, 8, 1), np.float32)})
                programs.append(one.train_step.lower(one.state, batch).as_text())
    assert programs[0] == programs[1]


def untimed(folder: Path) -> list[dict[str, float]]:
    """The log's numbers that do not depend on the machine."""
    timed = ("images_per_second", "input_share")
    return [
        {name: value for name, value in line.items() if name not in timed}
        for line in read_log(folder)
    ]


def test_a_folder_that_holds_something(whole: Path, tmp_path: Path):
    with pytest.raises(ValueError, match="holds a run already"):
        run(whole)
    with pytest.raises(ValueError, match=r"loop\.batch_size was 8, now 4"):
        run(whole, with_loop(batch_size=4), resume=True)
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(ValueError, match="a new or an empty folder"):
        run(tmp_path, resume=True)


def test_a_run_killed_before_its_first_checkpoint_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The folder is known as a run's before anything else is in it."""

    def killed(*_args: object, **_options: object) -> None:
        assert {path.name for path in tmp_path.iterdir()} == {"settings.json", ".lock"}
        raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoints, "__init__", killed)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    monkeypatch.undo()
    assert run(tmp_path, resume=True).step == 8


def test_several_updates_in_one_call_draw_the_same(whole: Path, tmp_path: Path):
    """XLA fuses two updates otherwise than one, so that bits differ."""
    assert run(tmp_path, with_loop(steps_per_call=2)) == (8, None, 1)
    for name, values in (("conv_in", "kernel"), ("conv_out", "bias")):
        ours, theirs = (
            dj.UNet2DModel.from_pretrained(out)[1][name][values] for out in (tmp_path, whole)
        )
        np.testing.assert_allclose(ours, theirs, atol=1e-4)  # an update changes up to 1e-3


def test_a_loss_that_is_no_number_stops_the_run(tmp_path: Path):
    hot = replace(SMALL, optimizer=Optimizer(learning_rate=1e30, warmup_steps=4, clip_norm=None))
    with pytest.raises(TrainingError) as stopped:
        run(tmp_path, with_loop(hot, save_every=1))
    message = str(stopped.value)
    assert message.startswith("update 3: ")  # the first update has learning rate 0
    assert "loss is nan" in message or "loss is inf" in message
    assert "(pictures " in message
    assert message.endswith(f"the last good checkpoint is {tmp_path / 'checkpoints' / '2'}")


def test_the_best_checkpoint_is_kept(tmp_path: Path):
    """The last checkpoint, of an update whose held-out loss nobody knows, is none of the best."""
    settings = with_loop(keep_last=1, keep_best=1, save_every=4, steps=14)
    run(tmp_path, settings)
    losses = {line["step"]: line["held_out_loss"] for line in read_log(tmp_path) if len(line) == 2}
    with Checkpoints(tmp_path / "checkpoints") as found:
        steps = set(found._manager.all_steps())
    assert set(losses) == {4, 8, 12}
    assert steps == {14, min(losses, key=losses.__getitem__)}


def test_a_checkpoint_that_cannot_be_written_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    save = Checkpoints.save

    def full(self: Checkpoints, state, extra, **options) -> None:
        if int(state.step) == 8:  # as the second one meets a full disk

            def raised(*_args, **_options):
                raise OSError(28, "No space left on device")

            monkeypatch.setattr(self._manager, "save", raised)
        save(self, state, extra, **options)

    monkeypatch.setattr(Checkpoints, "save", full)
    with pytest.raises(OSError, match=r"no space is left; checkpoints kept: 4"):
        run(tmp_path)
    monkeypatch.undo()
    run(tmp_path, resume=True)
    assert (tmp_path / "model_index.json").exists()


def test_a_damaged_checkpoint_is_told(whole: Path, tmp_path: Path):
    shutil.copytree(whole, tmp_path / "damaged")
    extra = tmp_path / "damaged" / "checkpoints" / "8" / "extra"
    shutil.rmtree(extra)
    with pytest.raises(
        ValueError, match=r"8 is damaged, or of a run with other settings"
    ) as raised:
        run(tmp_path / "damaged", resume=True)
    assert str(raised.value).endswith("; without that folder 4 is resumed from")
    shutil.rmtree(extra.parent)
    (extra.parents[1] / "8").mkdir()
    with pytest.raises(
        ValueError, match=r"8 is damaged, or of .*; without that folder 4 is resumed"
    ):
        run(tmp_path / "damaged", resume=True)
    (extra.parents[1] / "8").rmdir()
    run(tmp_path / "damaged", resume=True)
    assert weights(tmp_path / "damaged") == weights(whole)


def test_a_finished_run_without_checkpoints_is_not_begun_anew(whole: Path, tmp_path: Path):
    out = shutil.copytree(whole, tmp_path / "run")
    shutil.rmtree(out / "checkpoints")
    with pytest.raises(ValueError, match=r"was at update 8, and .*checkpoints holds no checkpoint"):
        run(out, resume=True)
    (out / "model_index.json").unlink()
    assert weights(out) == weights(whole)
    (out / "log.jsonl").write_text('{"step": 9, "loss": 1.0}\n')  # checkpoints were at 4 and 8
    with pytest.raises(ValueError, match=r"was at update 9, and .*checkpoints holds no checkpoint"):
        run(out, resume=True)


def test_checkpoints_without_their_settings(whole: Path, tmp_path: Path):
    out = shutil.copytree(whole, tmp_path / "run")
    (out / "settings.json").unlink()
    with pytest.raises(ValueError, match=r"holds checkpoints, but no settings\.json"):
        run(out, resume=True)


def test_more_updates_than_are_asked_for(whole: Path, tmp_path: Path):
    """The settings of the run stay as they were."""
    out = shutil.copytree(whole, tmp_path / "run")
    with pytest.raises(ValueError, match=r"8 updates are done already, and loop\.steps is 6"):
        run(out, with_loop(steps=6), resume=True)
    assert Settings.load(out / "settings.json") == SMALL


def test_one_run_in_a_folder_at_a_time(tmp_path: Path):
    with locked(tmp_path), pytest.raises(ValueError, match="another run is under way in"):
        run(tmp_path)
    assert not (tmp_path / "settings.json").exists()
    assert run(tmp_path).step == 8


def test_a_last_part_of_a_window_is_logged(tmp_path: Path):
    run(tmp_path, with_loop(log_every=5))
    assert [line["step"] for line in read_log(tmp_path) if "loss" in line] == [5, 8]


def test_classes_keep_their_names(tmp_path: Path):
    settings = replace(SMALL, data=replace(SMALL.data, labels=True))
    run(tmp_path / "plain", settings)
    ten = {i: str(i) for i in range(10)}
    assert class_names.read(tmp_path / "plain") == ten
    run(tmp_path / "free", replace(settings, objective=Objective(label_dropout=0.1)))
    assert class_names.read(tmp_path / "free") == {**ten, 10: "no class"}
    convert(tmp_path / "free", tmp_path / "flax", to="flax")
    assert class_names.read(tmp_path / "flax") == {**ten, 10: "no class"}


def test_a_run_that_got_nowhere_is_no_obstacle(tmp_path: Path):
    """As one leaves it that fails, or is killed, in its first moments."""
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "log.jsonl").touch()
    SMALL.save(tmp_path / "settings.json")
    changed = with_loop(seed=5, steps=1)
    assert run(tmp_path, changed).step == 1
    assert Settings.load(tmp_path / "settings.json") == changed
    with pytest.raises(ValueError, match="holds a run already"):
        run(tmp_path, changed)


def test_files_that_were_renamed(tmp_path: Path):
    """Their order decides the stream of pictures."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for i in range(4):
        Image.new("L", (8, 8), 60 * i).save(pictures / f"{i}.png")
    settings = replace(SMALL, data=Data(name=str(pictures)))
    run(tmp_path / "run", settings)
    (pictures / "0.png").rename(pictures / "9.png")
    with pytest.raises(ValueError, match="files have come, gone or been renamed"):
        run(tmp_path / "run", with_loop(settings, steps=9), resume=True)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"steps": 9, "steps_per_call": 2}, "loop.steps must be a multiple"),
        ({"keep_best": 1, "save_every": 6}, "save_every must be a multiple of eval_every"),
    ],
)
def test_plans_that_do_not_fit(tmp_path: Path, fields: dict[str, int], told: str):
    with pytest.raises(ValueError, match=told):
        make_plan(with_loop(**fields), tmp_path)
    assert not any(tmp_path.iterdir())


def test_pictures_that_do_not_halve(tmp_path: Path):
    odd = replace(PRESETS["tiny"], data=replace(SMALL.data, resolution=10))
    with pytest.raises(ValueError, match="pictures of 10x10 do not halve 2 times"):
        make_plan(odd, tmp_path)


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
