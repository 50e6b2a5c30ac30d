"""Shared by the tests of the command line: a tiny model, runs and their outputs, error lines."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image
from pipelines.models import pipeline, scheduler

import ddpm_jax as dj
from ddpm_jax.cli import main
from ddpm_jax.pipelines.unconditional import DDIMPipeline

DDIM = dj.DDIMScheduler.from_config(scheduler().config)
"""The scheduler that the command makes from the tiny model's."""

PROGRAM = "import sys; from ddpm_jax.cli import main; sys.exit(main(sys.argv[1:]))"
"""The command in a process of its own."""


def save_tiny(folder: Path, **config: object) -> Path:
    pipeline(DDIMPipeline, **config).save_pretrained(folder)
    return folder


def sample(model: Path, out: Path, *argv: str, steps: int = 3, batch: int = 2) -> int:
    """Runs the command. Batches of equal size share compiled programs across the tests."""
    always = f"sample --no-cache --model {model} --out {out} --steps {steps} --batch-size {batch}"
    return main([*always.split(), *argv])


def drawn(model: Path, *, seed: int = 0, steps: int = 3, **options: Any) -> list[Image.Image]:
    """The first two images of a seed, by the pipeline in Python."""
    pipe = DDIMPipeline.from_pretrained(model)
    call: dict[str, Any] = {"batch_size": 2, "num_inference_steps": steps, "progress": False}
    return pipe(jax.random.key(seed), **call, **options).images


def pixels(file: Path) -> np.ndarray:
    with Image.open(file) as image:
        return np.asarray(image)


def has_images(folder: Path, images: Sequence[Image.Image | np.ndarray]) -> bool:
    """Whether a folder has exactly these images, as PNG files."""
    files = [folder / f"{number:05d}.png" for number in range(len(images))]
    same = map(np.array_equal, map(pixels, files), images)
    return names(folder) == [file.name for file in files] and all(same)


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def complaint(argv: str, capsys: pytest.CaptureFixture[str], code: int) -> str:
    """Runs a command that must fail, and returns its error line."""
    capsys.readouterr()
    assert main(argv.split()) == code
    captured = capsys.readouterr()
    assert captured.err.endswith("\n")
    assert captured.err.count("\n") == 1, captured.err
    assert captured.err.startswith("ddpm-jax: ")
    return captured.err
