"""Going on with a run: to the same bits, or a sentence that says why not."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from training.runs import SMALL, run, weights, with_loop

from ddpm_jax.training.data import Data
from ddpm_jax.training.run.checkpoint import Checkpoints
from ddpm_jax.training.run.guards import locked
from ddpm_jax.training.run.logs import read_log
from ddpm_jax.training.run.plan import check_folder, make_plan
from ddpm_jax.training.run.ready import input_batches, prepare
from ddpm_jax.training.run.run import Run
from ddpm_jax.training.run.settings import Settings
from ddpm_jax.training.sharding import place_batch

pytest.importorskip("grain", reason="needs grain: pip install -e '.[test]'")
pytest.importorskip("tensorboardX", reason="needs tensorboardX: pip install -e '.[test]'")

pytestmark = [
    pytest.mark.usefixtures("kept_programs"),
    # tensorstore's threads speak up once the loop that they report to is closed.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.mark.parametrize("at", [pytest.param(3, marks=pytest.mark.slow), 6])
def test_a_killed_run_goes_on_to_the_same_bits(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
):
    """Killed at update 3 there is no checkpoint yet, at 6 there is one of update 4."""
    update = Run.update

    def killed(self: Run) -> None:
        if self.step == at:
            raise MemoryError("killed")
        update(self)

    monkeypatch.setattr(Run, "update", killed)
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
    plan, programs = make_plan(SMALL, out), list[str]()
    with Checkpoints(out / "checkpoints") as saved:
        for resume in (False, True):
            ready = prepare(plan, saved, input_batches(plan), resume=resume)
            assert ready.step == (8 if resume else 0)
            batch = place_batch({"image": np.zeros((8, 8, 8, 1), np.float32)}, plan.mesh)
            programs.append(ready.train_step.lower(ready.state, batch).as_text())
    assert programs[0] == programs[1]


def untimed(folder: Path) -> list[dict[str, float]]:
    """The log's numbers that do not depend on the machine."""
    timed = ("images_per_second", "input_share")
    return [
        {name: value for name, value in line.items() if name not in timed}
        for line in read_log(folder)
    ]


@pytest.mark.slow
def test_a_run_killed_before_its_first_checkpoint_begins_again(
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


@pytest.mark.slow
def test_a_run_ends_when_a_checkpoint_cannot_be_written(
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


def test_a_run_goes_on_without_a_damaged_checkpoint(whole: Path, tmp_path: Path):
    out = shutil.copytree(whole, tmp_path / "damaged")
    last = out / "checkpoints" / "8"
    shutil.rmtree(last / "extra")
    with pytest.raises(ValueError, match=r"8 is damaged, .*; without that folder 4 is resumed"):
        run(out, resume=True)
    shutil.rmtree(last)
    run(out, resume=True)
    assert weights(out) == weights(whole)


def test_more_updates_than_are_asked_for(whole: Path, tmp_path: Path):
    """The settings of the run stay as they were."""
    out = shutil.copytree(whole, tmp_path / "run")
    with pytest.raises(ValueError, match=r"8 updates are done already, and loop\.steps is 6"):
        run(out, with_loop(steps=6), resume=True)
    assert Settings.load(out / "settings.json") == SMALL


@pytest.mark.slow
def test_one_run_in_a_folder_at_a_time(tmp_path: Path):
    with locked(tmp_path), pytest.raises(ValueError, match="another run is under way in"):
        run(tmp_path)
    assert not (tmp_path / "settings.json").exists()
    assert run(tmp_path).step == 8


@pytest.mark.slow
def test_a_run_replaces_one_that_got_nowhere(tmp_path: Path):
    """As one leaves it that fails, or is killed, in its first moments."""
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "log.jsonl").touch()
    SMALL.save(tmp_path / "settings.json")
    changed = with_loop(seed=5, steps=1)
    assert run(tmp_path, changed).step == 1
    assert Settings.load(tmp_path / "settings.json") == changed
    with pytest.raises(ValueError, match="holds a run already"):
        run(tmp_path, changed)


@pytest.mark.slow
def test_files_that_were_renamed(tmp_path: Path):
    """Their order decides the stream of images."""
    images = tmp_path / "images"
    images.mkdir()
    for i in range(8):
        Image.new("L", (8, 8), 30 * i).save(images / f"{i}.png")
    settings = replace(SMALL, data=Data(name=str(images)))
    run(tmp_path / "run", settings)
    (images / "0.png").rename(images / "9.png")
    with pytest.raises(ValueError, match="files were added, removed or renamed"):
        run(tmp_path / "run", with_loop(settings, steps=9), resume=True)


def test_folders_that_a_run_may_not_use(whole: Path, tmp_path: Path):
    with pytest.raises(ValueError, match="holds a run already"):
        run(whole)

    def refused(message: str, out: Path, settings: Settings = SMALL) -> None:
        with pytest.raises(ValueError, match=message):
            check_folder(out, settings, resume=True)

    refused(r"loop\.batch_size was 8, now 4", whole, with_loop(batch_size=4))
    (tmp_path / "thesis.txt").touch()
    refused("a new or an empty folder", tmp_path)
    out = shutil.copytree(whole, tmp_path / "run")
    (out / "settings.json").rename(tmp_path / "settings.json")
    refused(r"holds checkpoints, but no settings\.json", out)
    (tmp_path / "settings.json").rename(out / "settings.json")
    shutil.rmtree(out / "checkpoints")
    refused(r"was at update 8, and .*checkpoints holds no checkpoint", out)
    (out / "model_index.json").unlink()
    check_folder(out, SMALL, resume=True)  # a run may be killed before its second checkpoint
    (out / "log.jsonl").write_text('{"step": 9, "loss": 1.0}\n')  # checkpoints were at 4 and 8
    refused(r"was at update 9, and .*checkpoints holds no checkpoint", out)


def test_folders_that_a_run_may_use(whole: Path, tmp_path: Path):
    """New, empty, or with what a run leaves that failed in its first moments, before or after it
    made its folders.
    """
    check_folder(tmp_path / "new", SMALL, resume=False)
    check_folder(tmp_path, SMALL, resume=True)
    SMALL.save(tmp_path / "settings.json")
    (tmp_path / ".lock").touch()
    check_folder(tmp_path, with_loop(seed=5), resume=True)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "log.jsonl").touch()
    check_folder(tmp_path, with_loop(seed=5), resume=False)
    check_folder(whole, SMALL, resume=True)
