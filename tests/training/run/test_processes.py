"""`ddpm-jax train` as two processes of one run: the numbers of one process."""

from pathlib import Path

import numpy as np
import pytest
from launch import two
from training.kill_and_resume import PROGRAM
from training.runs import SMALL

from ddpm_jax.training.run.logs import read_log

pytest.importorskip("grain", reason="needs grain: pip install -e '.[test]'")
pytest.importorskip("tensorboardX", reason="needs tensorboardX: pip install -e '.[test]'")

# On one device test_sharding holds what the run is made of; two processes take half a minute.
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("kept_programs")]


def test_two_processes_train_as_one(whole: Path, tmp_path: Path):
    """Samples, held-out losses and checkpoints included, and they go on with the run."""
    SMALL.save(tmp_path / "settings.json")
    out = tmp_path / "run"
    train = ("-c", PROGRAM, "train", "--no-cache", "--out", out)
    for printed in two(*train, "--config", tmp_path / "settings.json"):
        assert "8 updates, 1 compilation of the step" in printed
    for name in ("loss", "held_out_loss"):
        ours, theirs = (
            [line[name] for line in read_log(folder) if name in line] for folder in (out, whole)
        )
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, err_msg=name)  # as docs/training.md has
    assert [path.name for path in (out / "samples").iterdir()] == ["000008.png"]
    two(*train, "--resume", "--loop.steps", 10)
    assert [line["step"] for line in read_log(out) if "loss" in line] == [2, 4, 6, 8, 10]
