"""The command line but for sampling: help, errors, describe, info and convert."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pipeline_models import pipeline

from ddpm_jax import DDIMPipeline, DDIMScheduler, UNet2DModel, __version__, builder, hub
from ddpm_jax.cli import app, cache, info, main, schedule
from ddpm_jax.config import read_json
from ddpm_jax.schedulers import SCHEDULERS
from weights_convert import find_weights, open_weights

ROOT = Path(__file__).parents[1]


def read(unet: Path) -> dict[str, np.ndarray]:
    with open_weights(find_weights(unet)) as weights:
        return dict(weights)


def names_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def complaint(argv: str, capsys: pytest.CaptureFixture[str], code: int) -> str:
    """Runs a command that must fail, and returns its one line."""
    assert main(argv.split()) == code
    captured = capsys.readouterr()
    assert captured.err.endswith("\n")
    assert captured.err.count("\n") == 1, captured.err
    assert captured.err.startswith("ddpm-jax: ")
    return captured.err


def test_version(capsys: pytest.CaptureFixture[str]):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"ddpm-jax {__version__}\n"


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]):
    assert main(["--help"]) == 0
    told = capsys.readouterr().out
    assert all(f"• {name} " in told for name in app.COMMANDS)


@pytest.mark.parametrize("name", app.COMMANDS)
def test_help_of_a_command_has_examples_that_parse(name: str, capsys: pytest.CaptureFixture[str]):
    assert main([name, "--help"]) == 0
    told = capsys.readouterr().out
    examples = app.COMMANDS[name].EXAMPLES
    assert examples in told
    for line in examples.splitlines():
        program, *argv = line.split()
        assert program == "ddpm-jax"
        assert isinstance(app._parse(argv), app.COMMANDS[name])


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        ("", "Expected one of {sample, convert, info, describe}"),
        ("draw", "draw; Available subcommands"),
        ("info", "Missing from ddpm-jax info: MODEL"),
        ("sample --steps many", "--steps: invalid literal"),
        ("sample --stpes 3", "Perhaps you meant: --steps"),
        ("sample --scheduler plms", "'pndm'"),
        ("convert only-one", "DST"),
    ],
)
def test_wrong_arguments(argv: str, told: str, capsys: pytest.CaptureFixture[str]):
    assert told in complaint(argv, capsys, 2)


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        ("describe --steps 0", "got 0"),
        ("describe --steps 1001", "got 1001"),
        ("describe --set colour=red", "DDIMScheduler has no colour"),
        ("describe --set trailing", "FIELD=VALUE, got trailing"),
        ("describe --set timestep_spacing=backwards", "'backwards'"),
        ("describe --scheduler ddpm --eta 0.5", "ddpm scheduler takes no eta"),
        ("describe --scheduler ddim --set s_churn=4", "ddim scheduler takes no s_churn"),
        ("describe --model nowhere", "'nowhere' is not a folder"),
        ("info nowhere", "'nowhere' is not a folder"),
        ("info nowhere.png", "nowhere.png"),
        ("info digits --batch-size 0", "--batch-size must be at least 1"),
        ("convert nowhere there", "'nowhere' is not a folder"),
        ("sample --num 0 --seed -1 --save-every 0", "--seed must be at least 0"),
        ("sample --seed 4294967296", "--seed must be at most 4294967295, got 4294967296"),
        ("sample --out=", "--out must not be empty"),
        ("sample --set eta=true --num 1", "eta takes a number, got True"),
        ("describe --set eta=abc", "eta takes a number, got 'abc'"),
        ("describe --scheduler euler --set s_churn=abc", "s_churn takes a number, got 'abc'"),
        ("describe --scheduler euler --set s_churn=false", "s_churn takes a number, got False"),
        ("describe --scheduler euler --set s_noise=NaN", "s_noise takes a number, got nan"),
        ("describe --set use_clipped_model_output=7", "takes true or false, got 7"),
        ("describe --scheduler ddim --set s_noise=0", "ddim scheduler takes no s_noise"),
        ("sample --out pictures.jpg", "pictures.jpg"),
        ("sample --out pictures --columns 3", "--columns"),
        ("sample --out /dev/null/pictures", "/dev/null"),
        ("sample --model nowhere", "'nowhere' is not a folder"),
    ],
)
def test_errors_are_one_line(
    argv: str, told: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert told in complaint(argv, capsys, 1)
    assert not list(tmp_path.iterdir())


def test_a_fault_of_our_own_is_one_line_too(capsys: pytest.CaptureFixture[str], monkeypatch):
    def fail(self: object) -> None:
        raise KeyError("a fault\nof two lines")

    monkeypatch.setattr(app.Describe, "run", fail)
    assert "KeyError" in complaint("describe", capsys, 1)
    monkeypatch.setenv("DDPM_JAX_TRACEBACK", "1")
    with pytest.raises(KeyError):
        main(["describe"])


def test_interrupted(capsys: pytest.CaptureFixture[str], monkeypatch):
    def interrupt(self: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(app.Describe, "run", interrupt)
    assert complaint("describe", capsys, 130) == "ddpm-jax: interrupted\n"


def test_warnings_are_one_line(capsys: pytest.CaptureFixture[str], monkeypatch):
    def warn(self: object) -> None:
        import warnings

        warnings.simplefilter("always")
        warnings.warn("mind\nthe step", stacklevel=1)

    monkeypatch.setattr(app.Describe, "run", warn)
    assert main(["describe"]) == 0
    assert capsys.readouterr().err == "ddpm-jax: warning: mind the step\n"


def test_a_reader_that_leaves_early():
    """`ddpm-jax describe | head -n 1` ends quietly."""
    code = "import sys\nfrom ddpm_jax.cli import main\nsys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "describe", "--scheduler", "ddpm", "--steps", "1000"]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout is not None
        assert run.stderr is not None
        run.stdout.close()
        assert run.stderr.read() == ""
    assert run.returncode == 1


def test_every_scheduler_has_a_name():
    assert set(schedule.CLASSES.values()) == {kind.__name__ for kind in SCHEDULERS}
    assert set(schedule.CLASSES) == set(schedule.Name.__args__)


def test_describe_prints_the_table(capsys: pytest.CaptureFixture[str]):
    argv = "describe --steps 7 --eta 0.5 --set timestep_spacing=trailing clip_sample=False"
    assert main(argv.split()) == 0
    scheduler = DDIMScheduler(timestep_spacing="trailing", clip_sample=False)
    expected = builder.describe(scheduler.table(7, eta=0.5))
    assert capsys.readouterr().out == expected + "\n"


def test_describe_takes_the_models_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    DDIMScheduler(timestep_spacing="trailing").save_pretrained(tmp_path)
    assert main(["describe", "--steps", "4", "--model", str(tmp_path)]) == 0
    timesteps = re.findall(r"^ *\d+  t (\d+)", capsys.readouterr().out, re.MULTILINE)
    assert timesteps == ["999", "749", "499", "249"]


def test_info_of_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    pipeline(DDIMPipeline, num_class_embeds=3).save_pretrained(tmp_path)
    params = sum(array.size for array in read(tmp_path / "unet").values())
    assert main(["info", str(tmp_path), "--batch-size", "2"]) == 0
    told = capsys.readouterr().out
    assert re.search(r"^num_class_embeds +3$", told, re.MULTILINE)
    assert re.search(rf"^total +\d+ +{params:,}$", told, re.MULTILINE)
    assert f"{4 * params / 1000:.4g} kB in float32" in told
    assert re.search(r"2 images in float32: [\d.]+ kB more", told)


def test_parameter_table():
    config = read_json(hub.BUNDLED / "digits" / "unet" / "config.json")
    table = info.parameter_table(UNet2DModel.from_config(config).shapes())
    assert re.search(r"^mid_block +30 +181,504$", table, re.MULTILINE)
    assert re.search(r"^total +268 +1,623,169$", table, re.MULTILINE)


def test_info_of_a_picture_that_is_not_ours(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    picture = tmp_path / "holiday.png"
    Image.new("L", (2, 2)).save(picture)
    assert "no picture of ddpm-jax sample" in complaint(f"info {picture}", capsys, 1)


@pytest.mark.parametrize("to", ["flax", "orbax", "diffusers"])
def test_convert(to: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "out"
    argv = ["convert", "digits", str(out), "--to", to]
    assert main(argv) == 0
    told = capsys.readouterr().out
    assert "268 tensors, 1,623,169 params, float32, 6,492,676 bytes" in told
    before, after = read(hub.BUNDLED / "digits" / "unet"), read(out / "unet")
    assert set(before) == set(after)
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert "--overwrite replaces it" in complaint(" ".join(argv), capsys, 1)
    assert main([*argv, "--overwrite"]) == 0


@pytest.mark.parametrize("to", ["flax", "diffusers"])
def test_convert_refuses_weights_of_another_config(
    to: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Every fault is listed, and nothing is written."""
    source, out = tmp_path / "source", tmp_path / "out"
    pipeline(DDIMPipeline).save_pretrained(source)
    file = source / "unet" / "config.json"
    config = read_json(file) | {"num_class_embeds": 3, "in_channels": 2}
    file.write_text(json.dumps(config))
    told = complaint(f"convert {source} {out} --to {to}", capsys, 1)
    assert "missing: class_embedding.weight" in told
    assert "wrong shape: conv_in.weight is (8, 1, 3, 3), expected (8, 2, 3, 3)" in told
    assert names_in(tmp_path) == ["source"]
    file.write_text(json.dumps(config | {"_class_name": "AnotherModel"}))
    assert main(["convert", str(source), str(out), "--to", to]) == 0  # nothing is known of those


def test_cache_folder(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache.folder() == Path("/somewhere/ddpm_jax/compiled")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert cache.folder() == Path("/home/someone/.cache/ddpm_jax/compiled")


def test_cache_that_cannot_be_written(capsys: pytest.CaptureFixture[str]):
    cache.use(Path(os.devnull) / "cache")
    told = capsys.readouterr().err
    assert told.startswith("ddpm-jax: compiling without a cache: ")
    assert told.count("\n") == 1
