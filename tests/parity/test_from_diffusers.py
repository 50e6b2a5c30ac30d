"""Both sides of docs/start/from_diffusers.md run, and agree where no other random numbers enter."""

import re
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from pages import FROM_DIFFUSERS, OURS, THEIRS, column, local
from pipelines.latent_models import parts
from pipelines.models import pipeline

import ddpm_jax as dj

SETUP = local(FROM_DIFFUSERS.read_text().split("```python\n")[1].split("```")[0])
LINES = column(FROM_DIFFUSERS, THEIRS)
NAMES = re.findall(r"\b[A-Z]\w+(?:Pipeline|Scheduler|Model)\b", "\n".join(LINES))
CLASSES = {name: getattr(diffusers, name) for name in NAMES}
SAME = ("timesteps", "output", "after", "noised", "velocity", "x")
CLOSE = 2e-4
"""Relative to the largest value: ten evaluations in float32, whose convolutions round otherwise."""


@pytest.mark.filterwarnings("ignore:a text of more than", "ignore::FutureWarning")
@torch.no_grad()
def test_both_sides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pipeline(dj.DDIMPipeline, sample_size=32, in_channels=3, out_channels=3).save_pretrained("tiny")
    dj.StableDiffusionPipeline(**parts()).save_pretrained("tiny-sd")
    theirs: dict[str, Any] = {"torch": torch, **CLASSES}
    ours: dict[str, Any] = {}
    exec(SETUP, theirs)
    exec(SETUP, ours)
    for code in LINES:
        exec(code, theirs)
    for code in column(FROM_DIFFUSERS, OURS):
        exec(code, ours)
    for name in SAME:  # NHWC and NCHW
        found, wanted = np.asarray(ours[name]), np.asarray(theirs[name])
        if wanted.ndim == 4:
            wanted = wanted.transpose(0, 2, 3, 1)
        np.testing.assert_allclose(
            found, wanted, rtol=0, atol=CLOSE * np.abs(wanted).max(), err_msg=name
        )
