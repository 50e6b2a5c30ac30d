"""`ddpm-jax train` as two processes of one run: the numbers of one process."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training.runs import SMALL

from ddpm_jax.training.run.logs import read_log

pytest.importorskip("grain", reason="needs grain: pip install -e '.[test]'")
pytest.importorskip("tensorboardX", reason="needs tensorboardX: pip install -e '.[test]'")

# On one device test_sharding holds what the run is made of; two processes take half a minute.
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("kept_programs")]

PROGRAM = "import sys; from ddpm_jax.cli import main; sys.exit(main(sys.argv[1:]))"


def two(options: str) -> list[str]:
    """Runs the command as two processes; what each prints."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    given = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2", "JAX_PLATFORMS": "cpu"}
    both: list[Any] = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, "train", "--no-cache", *options.split()],
            env={**os.environ, **given, "JAX_PROCESS_ID": str(index)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for index in range(2)
    ]
    try:
        printed = [process.communicate(timeout=300)[0] for process in both]
    finally:
        for process in both:
            process.kill()
    assert [process.returncode for process in both] == [0, 0], printed
    return printed


def test_two_processes_train_as_one(whole: Path, tmp_path: Path):
    """Samples, held-out losses and checkpoints included, and they go on with the run."""
    SMALL.save(tmp_path / "settings.json")
    out = tmp_path / "run"
    for line in two(f"--config {tmp_path / 'settings.json'} --out {out}"):
        assert "8 updates, 1 compilation of the step" in line
    for name in ("loss", "held_out_loss"):
        ours, theirs = (
            [line[name] for line in read_log(folder) if name in line] for folder in (out, whole)
        )
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, err_msg=name)  # as docs/training.md has
    assert [path.name for path in (out / "samples").iterdir()] == ["000008.png"]
    two(f"--out {out} --resume --loop.steps 10")
    assert [line["step"] for line in read_log(out) if "loss" in line] == [2, 4, 6, 8, 10]
