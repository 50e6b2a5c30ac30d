"""The command line as a whole: help, errors and exit codes, the cache."""

import dataclasses
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from cli.sampling import PROGRAM, complaint

from ddpm_jax import DDIMScheduler, __version__
from ddpm_jax.cli import app, cache, main, schedule
from ddpm_jax.cli.evaluate import Evaluate
from ddpm_jax.evaluation.metrics import METRICS
from ddpm_jax.evaluation.networks import NETWORKS
from ddpm_jax.hub import hub
from ddpm_jax.hub.files import read_json, write_json
from ddpm_jax.schedulers import SCHEDULERS
from ddpm_jax.training.run.presets import PRESETS

ROOT = Path(__file__).parents[2]


def test_version(capsys: pytest.CaptureFixture[str]):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"ddpm-jax {__version__}\n"


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]):
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert all(f"• {name} " in printed for name in app.COMMANDS)


def texts(options: Any) -> Iterator[str]:
    """The help text of each option."""
    types = get_type_hints(options)
    for field in dataclasses.fields(options):
        if dataclasses.is_dataclass(types[field.name]):
            yield from texts(types[field.name])
        else:
            yield field.metadata["help"]  # each option has one


@pytest.mark.usefixtures("as_users_run")  # tyro's sentinel for a missing argument has no type
@pytest.mark.parametrize("name", app.COMMANDS)
def test_help_of_a_command(
    name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Each option has a text, wrapped once: a line break of the source would be one of the text,
    too. The examples parse, with the run and the model that those of training need.
    """
    monkeypatch.chdir(tmp_path)
    Path("digits-run").mkdir()
    PRESETS["tiny"].save("digits-run/settings.json")
    shutil.copytree(hub.BUNDLED / "digits", "google/ddpm-cifar10-32")
    command = app.COMMANDS[name]
    assert main([name, "--help"]) == 0
    whole = capsys.readouterr().out
    assert command.EXAMPLES in whole
    printed = re.sub(r"[\s\u2500-\u257f]+", " ", whole)  # tyro draws boxes
    found = list(texts(command))
    assert found
    assert all(text in printed for text in found)
    assert not [text for text in found if "\n" in text or not re.match(r'[A-Z"01]', text)]
    assert not [text for text in found if re.search(r"equation|\(\d\)|, see `", text)]
    for line in command.EXAMPLES.splitlines():
        program, *argv = line.split()
        assert program == "ddpm-jax"
        assert isinstance(app._parse(argv), command)
    if command is Evaluate:
        fields = [f"{k}.{f.name}" for k, one in METRICS.items() for f in dataclasses.fields(one)]
        assert all(text in printed for text in (*METRICS, *NETWORKS, *fields))


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ("", "sample, train, learn, evaluate"),
        ("draw", "draw"),
        ("info", "MODEL"),
        ("sample --steps many", "invalid literal"),
        ("sample --stpes 3", "--steps"),
        ("sample --scheduler plms", "'pndm'"),
        ("convert only-one", "DST"),
    ],
)
def test_wrong_arguments(argv: str, words: str, capsys: pytest.CaptureFixture[str]):
    """The message is tyro's and the exit code is ours."""
    assert main(argv.split()) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert "Traceback" not in captured.err
    assert not captured.out


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ("describe --steps 0", "got 0"),
        ("describe --steps 1001", "got 1001"),
        ("describe --set colour=red", "DDIMScheduler has no colour"),
        ("describe --set trailing", "FIELD=VALUE, got trailing"),
        ("describe --set steps_offset=-1", "steps_offset must lie in 0..999, got -1"),
        ("describe --set sigmas=[1,0]", "DDIMScheduler has no sigmas"),
        ("describe --scheduler ddpm --eta 0.5", "ddpm scheduler has no option eta"),
        ("describe --scheduler ddim --set s_churn=4", "ddim scheduler has no option s_churn"),
        ("describe --revision main", "pass --model"),
        ("info digits --memory --batch-size 0", "--batch-size must be at least 1"),
        ("info digits --batch-size 2", "--batch-size needs --memory"),
        ("train --out typo --resume", "there is no run in typo; to begin one there, pass --data"),
        ("sample --guidance 2", "this model has no class that means no class"),
        ("sample --num 0 --seed -1 --save-every 0", "--seed must be at least 0"),
        ("sample --seed 4294967296", "--seed must be at most 4294967295, got 4294967296"),
        ("sample --out=", "--out must not be empty"),
        ("sample --set eta=true --num 1", "eta must be a number, got True"),
        ("describe --set eta=abc", "eta must be a number, got 'abc'"),
        ("describe --scheduler euler --set s_churn=abc", "s_churn must be a number, got 'abc'"),
        ("describe --scheduler euler --set s_churn=false", "s_churn must be a number, got False"),
        ("describe --scheduler euler --set s_noise=NaN", "s_noise must be a number, got nan"),
        ("describe --set use_clipped_model_output=7", "must be true or false, got 7"),
        ("describe --scheduler ddim --set s_noise=0", "ddim scheduler has no option s_noise"),
        ("sample --out images.jpg", "images.jpg"),
        ("sample --out images --columns 3", "--columns"),
        ("sample --out images --gif --save-every 2", "--gif needs a grid"),
        ("sample --gif", "--gif needs --save-every"),
        ("sample --guidance-interval 0.5 0.1 --guidance 2", "needs 0 <= LOW < HIGH, got 0.5 0.1"),
        ("sample --guidance-interval 0.1 0.5", "--guidance-interval needs --guidance above 1"),
        ("sample --mask m.png", "--mask needs --image"),
        ("sample --labels 1", "--labels is for models with classes"),
        ("sample --format npz --out a.png", "--format npz needs a folder"),
        ("sample --shard-size 3 --out x", "--shard-size needs --format npz"),
        ("sample --format npz --shard-size 0 --out x", "--shard-size must be at least 1, got 0"),
        ("sample --format npz --save-every 1 --out x", "--save-every needs PNG files"),
        ("sample --out x.npz", "--out must be a folder, and --format npz its files; got x.npz"),
    ],
)
def test_wrong_values_of_options(
    argv: str, words: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch
):
    """The exit code is that of wrong arguments."""
    monkeypatch.chdir(tmp_path)
    assert words in complaint(argv, capsys, 2)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ("describe --model nowhere", "'nowhere' is not a local folder"),
        ("describe --model digits --revision main", "revision='main' is for hub repositories"),
        ("info nowhere", "'nowhere' is not a local folder"),
        ("info nowhere.png", "nowhere.png"),
        ("convert nowhere there", "'nowhere' is not a local folder"),
        ("sample --out /dev/null/images", "/dev/null"),
        ("sample --model nowhere", "'nowhere' is not a local folder"),
        ("sample --variant fp16", "no weights of variant 'fp16'"),
    ],
)
def test_errors_are_one_line(
    argv: str, words: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert words in complaint(argv, capsys, 1)
    assert not list(tmp_path.iterdir())


def test_a_fault_of_the_models_config_is_not_a_wrong_option(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    DDIMScheduler().save_pretrained(tmp_path)
    file = tmp_path / "scheduler_config.json"
    write_json(file, read_json(file) | {"steps_offset": -1})
    assert "got -1" in complaint(f"describe --model {tmp_path}", capsys, 1)
    argv = f"describe --model {tmp_path} --steps 2 --set steps_offset="
    assert "got -2" in complaint(f"{argv}-2", capsys, 2)
    assert main(f"{argv}1".split()) == 0


def test_an_internal_error_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch):
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


def test_a_reader_that_closes_the_pipe():
    """`ddpm-jax describe | head -n 1` prints no error."""
    command = [sys.executable, "-c", PROGRAM, "describe", "--scheduler", "ddpm", "--steps", "1000"]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout is not None
        assert run.stderr is not None
        run.stdout.close()
        assert run.stderr.read() == ""
    assert run.returncode == 1


def test_every_scheduler_has_a_name():
    names = [kind.short_name() for kind in SCHEDULERS if not kind.ascends]
    assert sorted(schedule.SchedulerName.__args__) == sorted(names)
    assert {"ddpm", "ddim", "pndm", "euler", "euler-ancestral", "kdpm2-ancestral"} <= set(names)


def test_cache_folder(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache.folder() == Path("/somewhere/ddpm_jax/compiled")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert cache.folder() == Path("/home/someone/.cache/ddpm_jax/compiled")


def test_cache_that_is_not_writable(capsys: pytest.CaptureFixture[str]):
    """A run goes on without it."""
    cache.use(Path(os.devnull) / "cache")
    printed = capsys.readouterr().err
    assert printed.startswith("ddpm-jax: compiling without a cache: ")
    assert printed.count("\n") == 1
