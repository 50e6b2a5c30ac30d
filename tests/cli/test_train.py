"""`ddpm-jax train`: sources of settings, outputs, exit codes."""

import errno
import json
import re
import signal
from pathlib import Path

import numpy as np
import pytest
from cli.sampling import complaint
from PIL import Image
from training.runs import SMALL, with_loop

from ddpm_jax import DDIMPipeline
from ddpm_jax.cli import app, main
from ddpm_jax.hub import hub
from ddpm_jax.training.run import run
from ddpm_jax.training.run.presets import PRESETS
from ddpm_jax.training.run.run import Outcome
from ddpm_jax.training.run.settings import Settings

pytest.importorskip("grain", reason="needs grain: pip install -e '.[test]'")

pytestmark = pytest.mark.usefixtures("kept_programs")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Settings that take seconds."""
    path = tmp_path_factory.mktemp("settings") / "settings.json"
    SMALL.save(path)
    return path


@pytest.fixture(scope="module")
def done(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of eight updates, the last of which are traced."""
    out = tmp_path_factory.mktemp("runs") / "run"
    argv = ["train", "--config", str(config), "--out", str(out), "--no-cache"]
    assert main([*argv, "--loop.steps", "12", "--profile", "2"]) == 0
    return out


def last_word(argv: str, capsys: pytest.CaptureFixture[str]) -> str:
    """The line under the progress bar of a run that fails."""
    assert main([*argv.split(), "--no-cache"]) == 1
    return capsys.readouterr().err.splitlines()[-1]


def parsed(*argv: str) -> Settings:
    return app._parse(["train", "--out", "new", *argv])


def test_settings_come_from_a_preset(tmp_path: Path):
    assert parsed().model == PRESETS["tiny"].model
    paper = parsed("--preset", "cifar10")
    assert paper.loop == PRESETS["cifar10"].loop
    changed = parsed("--preset", "cifar10", "--loop.batch-size", "64", "--data.no-flip")
    assert changed.loop == with_loop(paper, batch_size=64).loop
    assert (paper.data.flip, changed.data.flip) == (True, False)


def test_settings_come_from_a_file(config: Path):
    changed = parsed(f"--config={config}", "--ema.decay", "0.5")
    assert changed.model == SMALL.model
    assert (changed.ema.decay, changed.ema.power) == (0.5, SMALL.ema.power)


def test_settings_come_from_a_model():
    """The network and the forward process come from the model, the rest from the preset."""
    taken = parsed("--from", "digits", "--preset", "cifar10")
    own = json.loads((hub.BUNDLED / "digits" / "unet" / "config.json").read_text())
    assert taken.model.block_out_channels == tuple(own["block_out_channels"])
    assert taken.loop == PRESETS["cifar10"].loop


def test_short_options():
    short = parsed("--data", "photos", "--profile", "3")
    assert (short.data.name, short.loop.profile) == ("photos", 3)
    assert parsed("--data=photos").data.name == "photos"


@pytest.mark.slow
def test_a_run_says_where_its_model_is(done: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["info", str(done)]) == 0
    assert "UNet2DModel" in capsys.readouterr().out
    assert DDIMPipeline.from_pretrained(done).unet.block_out_channels == (4,)


@pytest.mark.slow
def test_profile_writes_a_trace(done: Path):
    traces = list((done / "tensorboard" / "plugins" / "profile").glob("*/*.xplane.pb"))
    assert len(traces) == 1
    assert traces[0].stat().st_size > 1000


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ("--loop.steps 0", "steps must be at least 1, got 0"),
        ("--loop.keep-best 1", "set data.held_out too"),
        ("--preset tiny --config x.json", "--preset and --config both set the initial settings"),
        ("--model.block-out-channels 7", "got 1 block_out_channels, 3 down_block_types"),
        ("--prest tiny", "--preset"),
        ("--loop.sample-steps 2000", "loop.sample_steps must be at most"),
        ("--data.held-out 1797", "leaves no image to train on"),
        ("--loop.fsdp 3", "fsdp must divide the number of devices, 1; got 3"),
        ("--profile 2 --loop.steps 10", "loop.profile begins after 10 updates"),
        ("--model.layers-per-block 0 --model.dropout 2", "cannot be built: layers_per_block must"),
        (
            "--from digits --model.block-out-channels 32 64 96",
            "digits does not fit these settings: ",
        ),
    ],
)
def test_wrong_options(
    options: str, error: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "out"
    assert main(["train", "--out", str(out), *options.split()]) == 2
    message = re.sub(r"[\s\u2500-\u257f]+", " ", capsys.readouterr().err)  # tyro draws boxes
    assert error in message
    assert "Traceback" not in message
    assert not out.exists()


@pytest.mark.usefixtures("as_users_run")
def test_wrong_files_and_models(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out, file = tmp_path / "out", tmp_path / "s.json"
    file.write_text('{"loop": {"steps": "many"}}')
    for options, error in (
        (f"--config {file}", f"{file}: Loop: steps must be a whole number, got 'many'"),
        (f"--config {tmp_path / 'none.json'}", "none.json does not exist"),
        (f"--from {tmp_path}", "has no unet/config.json or config.json"),
        ("--from ./nowhere", "'./nowhere' is not a local folder"),
        ("--data ./nowhere", "there is no file or folder ./nowhere"),
        (f"--data {tmp_path}", "holds no image"),
    ):
        assert error in complaint(f"train --out {out} {options}", capsys, 1)
    error = complaint(f"train --out {out} --data ./nowhere --loop.fsdp 3", capsys, 2)
    assert "fsdp must divide the number of devices" in error  # before images are searched for
    error = complaint(f"train --out {out} --revision v1", capsys, 2)
    assert "--revision needs the model that --from names" in error
    assert not out.exists()


@pytest.mark.slow
def test_classes_are_named(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """At the start of training, and by `info` afterwards."""
    for name, gray in (("owl", 0), ("asp", 255)):
        (tmp_path / "birds" / name).mkdir(parents=True)
        for i in range(12):
            Image.new("L", (8, 8), gray).save(tmp_path / "birds" / name / f"{i}.png")
    out = tmp_path / "run"
    command = f"train --config {config} --data {tmp_path / 'birds'} --data.labels --out {out}"
    assert main([*command.split(), "--no-cache"]) == 0
    assert "24 images of 8x8x1 in 2 classes (0 asp, 1 owl), " in capsys.readouterr().out
    assert main(["info", str(out)]) == 0
    assert "classes: 0 asp, 1 owl" in capsys.readouterr().out.splitlines()


@pytest.mark.slow
def test_going_on_from_another_forward_process(
    done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Differences from the training of the model are printed."""
    config = json.loads((done / "settings.json").read_text())
    config["loop"] |= {"steps": 1, "sample_every": 0, "profile": 0}
    (tmp_path / "s.json").write_text(json.dumps(config))
    base = f"train --config {tmp_path / 's.json'} --no-cache --from"
    v = "--diffusion.prediction-type v_prediction"
    assert main(f"{base} {done} {v} --out {tmp_path / 'v'}".split()) == 0
    error = capsys.readouterr().out
    assert f"diffusion.prediction_type is v_prediction; {done} was trained with epsilon" in error
    assert main(f"{base} {done / 'unet'} --out {tmp_path / 'bare'}".split()) == 0
    error = capsys.readouterr().out
    assert "unet came without a scheduler: it is assumed to predict epsilon (linear)" in error


def test_channels_that_no_grid_has(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    command = f"train --data {five_channels(tmp_path)} --out {tmp_path / 'out'}"
    error = complaint(command, capsys, 2)
    assert "grids of samples have 1, 3 or 4 channels" in error
    assert "five.npy has 5: set loop.sample_every to 0" in error
    assert not (tmp_path / "out").exists()


def five_channels(folder: Path) -> Path:
    np.save(folder / "five.npy", np.zeros((24, 8, 8, 5), np.uint8))
    return folder / "five.npy"


@pytest.mark.parametrize(
    ("data", "stopped", "code"),
    [
        ("digits", None, 0),
        ("five", None, 0),
        ("digits", signal.SIGTERM, 0),
        ("digits", signal.SIGINT, 130),
    ],
)
def test_messages_of_a_run(
    config: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    data: str,
    stopped: signal.Signals | None,
    code: int,
):
    """The data and the model before the run; the path of the model or a hint after it."""
    monkeypatch.setattr(run, "train_checked", lambda *_, **__: Outcome(5, stopped, 1))
    out = tmp_path / "run"
    name = five_channels(tmp_path) if data == "five" else data
    options = f"--data {name} --loop.sample-every 0 --out {out} --no-cache"
    labels = ["--data.labels"] if data == "digits" else []
    assert main(["train", "--config", str(config), *options.split(), *labels]) == code
    printed = capsys.readouterr()
    said = printed.out + printed.err
    if stopped is not None:
        assert f"stopped by {stopped.name} after 5 of 8 updates: continue with --resume" in said
    elif data == "digits":
        assert "1,797 images of 8x8x1 in 10 classes (0 0, 1 1, " in said
        assert f"5 updates, 1 compilation of the step; the model is {out}: ddpm-jax sample" in said
    else:
        assert "with 5 channels, use a pipeline in Python" in said


def test_a_folder_that_holds_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    SMALL.save(tmp_path / "settings.json")
    (tmp_path / "checkpoints" / "4").mkdir(parents=True)
    error = complaint(f"train --out {tmp_path}", capsys, 1)
    assert "holds a run already: resume goes on with it" in error
    error = complaint(f"train --out {tmp_path} --resume --loop.seed 1", capsys, 1)
    assert "begun with other settings: loop.seed was 0, now 1" in error


def test_a_folder_that_is_not_empty(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "thesis.txt").touch()
    assert "a new or an empty folder" in complaint(f"train --out {tmp_path}", capsys, 1)


def test_a_folder_that_cannot_be_written(
    config: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    def refused(*_args: object, **_options: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", refused)
    error = last_word(f"train --config {config} --out {tmp_path / 'run'}", capsys)
    assert f"{tmp_path / 'run'} cannot be written to" in error
    assert "Read-only file system" in error
