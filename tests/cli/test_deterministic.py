"""`ddpm-jax sample --deterministic`: XLA is told, and two compilations give the same bits."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli.sampling import PROGRAM

from ddpm_jax.cli import deterministic, main
from ddpm_jax.cli.sample import Sample


def test_the_flags_join_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=there")
    for _ in range(2):
        deterministic.use()
        assert os.environ["XLA_FLAGS"].split() == ["--xla_dump_to=there", *deterministic.FLAGS]


def test_the_option_sets_them_before_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def stopped(_self: Sample) -> None:
        seen.append(os.environ["XLA_FLAGS"].split())
        raise KeyboardInterrupt

    monkeypatch.delenv("XLA_FLAGS", raising=False)
    monkeypatch.setattr(Sample, "job", stopped)
    assert main(["sample", "--deterministic"]) == 130
    assert seen == [list(deterministic.FLAGS)]


# On a GPU this is the promise; on a CPU it shows that XLA knows the flags: an unknown one ends the
# process. fast: the tests above.
@pytest.mark.slow
def test_two_processes_give_the_same_bits(tmp_path: Path) -> None:
    images = []
    for name in ("a.png", "b.png"):
        command = "sample --steps 5 --num 4 --no-cache --deterministic --out".split()
        subprocess.run([sys.executable, "-c", PROGRAM, *command, str(tmp_path / name)], check=True)
        images.append((tmp_path / name).read_bytes())
    assert images[0] == images[1]
