"""Checkpoints of a small state: which are kept, and those that are damaged or do not fit."""

import shutil
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
import pytest

from ddpm_jax.training.run.checkpoint import SHOWN, Checkpoints
from ddpm_jax.training.state import init_state

# tensorstore's threads speak up once the loop that they report to is closed.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

STATE = init_state({"w": jnp.zeros(2**18)}, optax.sgd(0.1), jax.random.key(0))


def save(saved: Checkpoints, step: int, held_out: float | None = None) -> None:
    state = replace(STATE, step=jnp.int32(step))
    saved.save(state, {"of": step}, held_out=held_out)


@pytest.mark.parametrize(
    ("keep_last", "keep_best", "kept"), [(1, 1, [8, 14]), (2, 0, [12, 14]), (1, 2, [8, 12, 14])]
)
def test_the_last_and_the_best_are_kept(
    tmp_path: Path, keep_last: int, keep_best: int, kept: list[int]
):
    """One without a held-out loss is none of the best."""
    losses = {4: 0.3, 8: 0.1, 12: 0.2, 14: None}
    with Checkpoints(tmp_path / "saved", keep_last=keep_last, keep_best=keep_best) as saved:
        for step, loss in losses.items():
            save(saved, step, loss)
    with Checkpoints(tmp_path / "saved") as found:
        assert found.steps() == kept
        assert found.restore(STATE).extra == {"of": 14}


def test_a_damaged_part_is_refused(tmp_path: Path):
    with Checkpoints(tmp_path) as saved:
        save(saved, 4)
        save(saved, 8)
    whole = shutil.copytree(tmp_path / "8", tmp_path / "whole")
    for part in ("extra/metadata", "state/manifest.ocdbt", "state/_METADATA", "extra", "."):
        shutil.rmtree(tmp_path / "8")
        damaged = shutil.copytree(whole, tmp_path / "8") / part
        damaged.unlink() if damaged.is_file() else shutil.rmtree(damaged)
        (tmp_path / "8").mkdir(exist_ok=True)
        with (
            Checkpoints(tmp_path) as found,
            pytest.raises(ValueError, match=r"8 is damaged, .* that folder 4 is") as raised,
        ):
            found.restore(STATE)
        assert len(str(raised.value)) < len(str(tmp_path)) + 120 + SHOWN


def test_a_checkpoint_that_does_not_fit_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The error says so, and the ones before it are there to resume from."""
    usage = shutil.disk_usage(tmp_path)
    with Checkpoints(tmp_path / "checkpoints") as saved:
        save(saved, 0)
        saved.wait()
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=2**20))
        message = r"\(1 MiB free\): no space is left, it takes 2 MiB; checkpoints kept: 0$"
        with pytest.raises(OSError, match=message):
            save(saved, 4)
        monkeypatch.undo()
        assert saved.restore(STATE).extra == {"of": 0}
        save(saved, 4)
    assert saved.steps() == [0, 4]
