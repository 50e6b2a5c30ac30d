"""Our lines of docs/start/from_diffusers.md run; tests/parity has diffusers' side."""

import ast
import re
from pathlib import Path

import numpy as np
import pytest
from pages import FROM_DIFFUSERS, OURS, THEIRS, column, local
from pipelines.latent_models import parts
from pipelines.models import pipeline

import ddpm_jax as dj

SETUP = re.findall(r"^```python\n(.*?)^```", FROM_DIFFUSERS.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.slow  # fast: README has lines of the same kind, and the names are below
@pytest.mark.filterwarnings("ignore:a text of more than")
def test_our_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pipeline(dj.DDIMPipeline, sample_size=32, in_channels=3, out_channels=3).save_pretrained("tiny")
    dj.StableDiffusionPipeline(**parts()).save_pretrained("tiny-sd")
    names: dict[str, object] = {}
    for code in [*map(local, SETUP), *column(FROM_DIFFUSERS, OURS)]:
        exec(code, names)
    assert np.asarray(names["x"]).shape == (1, 32, 32, 3)
    assert np.isfinite(np.asarray(names["x"])).all()


@pytest.mark.parametrize("line", column(FROM_DIFFUSERS, OURS))
def test_our_names_exist(line: str) -> None:
    for node in ast.walk(ast.parse(line)):
        if isinstance(node, ast.Attribute) and (name := ast.unparse(node)).startswith("dj."):
            assert eval(name, {"dj": dj}) is not None


def test_each_line_has_another_side() -> None:
    """But for `.to(device)`, which has none."""
    assert len(column(FROM_DIFFUSERS, THEIRS)) == len(column(FROM_DIFFUSERS, OURS)) + 1 > 20
