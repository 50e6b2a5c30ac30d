"""`ddpm-jax sample` into a grid, in several batches."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli.sampling import names, pixels, sample, save_tiny

from ddpm_jax.pipelines import call
from ddpm_jax.pipelines.generate import generate


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model") / "tiny")


def test_an_interrupted_grid_writes_nothing(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    started: list[int] = []

    def third_is_interrupted(*args: Any, **options: Any) -> Any:
        started.append(len(started))
        if started == [0, 1, 2]:
            raise KeyboardInterrupt
        return generate(*args, **options)

    monkeypatch.setattr(call, "generate", third_is_interrupted)
    argv = ("--num", "7", "--batch-size", "2")
    assert sample(tiny, tmp_path / "a.png", *argv) == 130
    assert "interrupted; nothing was written" in capsys.readouterr().err
    assert names(tmp_path) == []
    assert sample(tiny, tmp_path / "a.png", *argv) == 0
    assert len(started) == 3 + 4


def test_a_grid_does_not_depend_on_the_batch_size(tiny: Path, tmp_path: Path):
    argv = ("--num", "5", "--save-every", "2")
    assert sample(tiny, tmp_path / "a.png", *argv, "--batch-size", "2") == 0
    assert sample(tiny, tmp_path / "b.png", *argv, "--batch-size", "5") == 0
    assert names(tmp_path) == ["a-steps.png", "a.png", "b-steps.png", "b.png"]
    for end in (".png", "-steps.png"):
        one, other = (pixels(tmp_path / f"{name}{end}").astype(int) for name in "ab")
        assert np.abs(one - other).max() <= 1  # a convolution's rounding depends on the batch
