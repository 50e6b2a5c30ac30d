"""What the tests of the command line share: a tiny model, reading what was made, complaints."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pipelines.models import pipeline, scheduler

import ddpm_jax as dj
from ddpm_jax.cli import main
from ddpm_jax.pipelines.unconditional import DDIMPipeline

DDIM = dj.DDIMScheduler.from_config(scheduler().config)
"""What the command makes of the tiny model's scheduler."""


def save_tiny(folder: Path, **config: object) -> Path:
    pipeline(DDIMPipeline, **config).save_pretrained(folder)
    return folder


def sample(model: Path, out: Path, *argv: str, steps: int = 3, batch: int = 2) -> int:
    """Runs the command; batches of one size share their compilation across the tests."""
    always = f"sample --no-cache --model {model} --out {out} --steps {steps} --batch-size {batch}"
    return main([*always.split(), *argv])


def pixels(file: Path) -> np.ndarray:
    with Image.open(file) as picture:
        return np.asarray(picture)


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def complaint(argv: str, capsys: pytest.CaptureFixture[str], code: int) -> str:
    """Runs a command that must fail, and returns its one line."""
    assert main(argv.split()) == code
    captured = capsys.readouterr()
    assert captured.err.endswith("\n")
    assert captured.err.count("\n") == 1, captured.err
    assert captured.err.startswith("ddpm-jax: ")
    return captured.err
