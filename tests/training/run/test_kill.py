"""Signals that a run gets as a process."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from training.kill_and_resume import command, main

pytest.importorskip("grain", reason="needs grain: pip install -e '.[test]'")

# In process the same is held by test_run (SIGTERM) and test_resume (the same bits after a kill).
pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_saves_and_ends(tmp_path: Path, number: signal.Signals, code: int):
    out = tmp_path / "run"
    options = ["--loop.save-every", "1000000", "--no-cache"]
    with subprocess.Popen(
        [*command(out, 1_000_000), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        while not ((out / "log.jsonl").exists() and (out / "log.jsonl").read_text()):
            assert child.poll() is None, child.stderr and child.stderr.read()
            time.sleep(0.05)
        os.kill(child.pid, number)
        printed, wrong = child.communicate(timeout=120)
    assert child.returncode == code
    assert "Traceback" not in wrong
    assert f"stopped by {number.name} after " in printed + wrong
    saved = [path.name for path in (out / "checkpoints").iterdir()]
    assert len(saved) == 1
    assert f"after {saved[0]} of 1000000 updates" in printed + wrong
    assert (out / "model_index.json").exists()  # the result so far


def test_kills(tmp_path: Path):
    """A few; the script takes more."""
    assert main([str(tmp_path), "--kills", "2", "--updates", "100"]) == 0
