"""README: its Python runs, its commands parse, its links and images are there."""

import re
import shlex
from pathlib import Path

import jax
import numpy as np
import pytest
from pipelines.latent_models import parts
from pipelines.models import pipeline

import ddpm_jax as dj
from ddpm_jax.cli import app
from ddpm_jax.pipelines.unconditional import DDIMPipeline
from ddpm_jax.training.run.presets import PRESETS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
VENV = "python3 -m venv .venv && .venv/bin/pip install"
PROMPT = '--prompt "a person with green hair and glasses" --guidance 3 --num 4'
STABLE_DIFFUSION = "stable-diffusion-v1-5/stable-diffusion-v1-5"
MODELS = re.compile(r'"(google/[\w-]+|digits)"')


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.mark.filterwarnings("ignore:a text of more than")
def test_python(tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]):
    """All of it, in order, with a model that compiles sooner in place of those it names."""
    monkeypatch.chdir(tmp_path)
    pipeline(DDIMPipeline).save_pretrained("tiny")
    dj.StableDiffusionPipeline(**parts()).save_pretrained("tiny-sd")
    names: dict[str, object] = {}
    for block in blocks("python"):
        exec(MODELS.sub('"./tiny"', block.replace(STABLE_DIFFUSION, "tiny-sd")), names)
    assert (tmp_path / "astronaut.png").stat().st_size > 0
    assert (tmp_path / "cat.png").stat().st_size > 0
    assert len(names["images"]) == 4
    # The loop written by hand ends where `sample` does, up to the rounding of one program or many.
    x_0, by_hand = np.asarray(names["x_0"]), np.asarray(names["registers"][0])
    assert x_0.shape == (16, 8, 8, 1)
    assert np.abs(x_0 - by_hand).max() < 1e-3
    assert isinstance(names["x_0"], jax.Array)


@pytest.mark.parametrize("line", [line for b in blocks("bash") for line in b.splitlines()])
def test_commands_parse(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    words = shlex.split(line, comments=True)
    monkeypatch.chdir(tmp_path)
    Path("photos-run").mkdir()
    PRESETS["tiny"].save(tmp_path / "photos-run" / "settings.json")  # the run that is resumed
    if words[0] == "python3":
        assert line in (
            f"{VENV} -e . && .venv/bin/ddpm-jax sample {PROMPT}",
            f"{VENV} -e '.[test]' && .venv/bin/pytest",
        )
        return
    assert words[0] == "ddpm-jax"
    assert isinstance(app._parse(words[1:]), app.COMMANDS[words[1]])


def test_links_have_targets():
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert "docs/images/avatars.png" in links
    assert [link for link in links if not (ROOT / link).exists()] == []
