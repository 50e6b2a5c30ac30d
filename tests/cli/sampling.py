"""Shared by the tests of the command line: a tiny model, reading of outputs, error lines."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pipelines.models import pipeline, scheduler

import ddpm_jax as dj
from ddpm_jax.cli import main
from ddpm_jax.pipelines.unconditional import DDIMPipeline

DDIM = dj.DDIMScheduler.from_config(scheduler().config)
"""The scheduler that the command makes from the tiny model's."""


def save_tiny(folder: Path, **config: object) -> Path:
    pipeline(DDIMPipeline, **config).save_pretrained(folder)
    return folder


def sample(model: Path, out: Path, *argv: str, steps: int = 3, batch: int = 2) -> int:
    """Runs the command. Batches of equal size share compiled programs across the tests."""
    always = f"sample --no-cache --model {model} --out {out} --steps {steps} --batch-size {batch}"
    return main([*always.split(), *argv])


def pixels(file: Path) -> np.ndarray:
    with Image.open(file) as image:
        return np.asarray(image)


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def complaint(argv: str, capsys: pytest.CaptureFixture[str], code: int) -> str:
    """Runs a command that must fail, and returns its error line."""
    assert main(argv.split()) == code
    captured = capsys.readouterr()
    assert captured.err.endswith("\n")
    assert captured.err.count("\n") == 1, captured.err
    assert captured.err.startswith("ddpm-jax: ")
    return captured.err
