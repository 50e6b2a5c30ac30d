"""`ddpm-jax sample` into a grid that is interrupted: what was drawn is not drawn again."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli.sampling import names, pixels, sample, save_tiny

from ddpm_jax.cli import drawing
from ddpm_jax.sampling import segments

NUM = 7
"""Images; in batches of two, of which the third is the one that is interrupted."""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Which batches are begun; the third is interrupted."""
    begun: list[int] = []

    def run(*args: Any, **options: Any) -> Iterator[segments.Progress]:
        begun.append(len(begun))
        if begun == [0, 1, 2]:
            raise KeyboardInterrupt
        yield from segments.run(*args, **options)

    monkeypatch.setattr(drawing, "run", run)
    return begun


def grid(model: Path, out: Path, *argv: str) -> int:
    return sample(model, out, "--num", str(NUM), *argv)


@pytest.mark.parametrize("argv", [(), ("--save-every", "2")], ids=["images", "strips"])
def test_an_interrupted_grid_goes_on(
    argv: tuple[str, ...],
    tiny: Path,
    tmp_path: Path,
    batches: list[int],
    capsys: pytest.CaptureFixture[str],
):
    out, whole = tmp_path / "a.png", tmp_path / "whole"
    assert grid(tiny, out, *argv) == 130
    assert "interrupted; 4 images kept: the same command" in capsys.readouterr().err
    assert names(tmp_path) == [".a.png.partial"]
    assert grid(tiny, out, *argv) == 0
    assert len(batches) == 3 + 2
    assert "3 images in" in (told := capsys.readouterr().out)
    assert "4 were there" in told
    files = ["a-steps.png", "a.png"] if argv else ["a.png"]
    assert names(tmp_path) == files
    assert grid(tiny, whole / "a.png", *argv) == 0
    for name in files:
        assert np.array_equal(pixels(tmp_path / name), pixels(whole / name))


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ([], ["--seed", "1"]),
        ([], ["--save-every", "1"]),
        (["--save-every", "1"], ["--save-every", "2"]),
        (["--save-every", "1"], []),
    ],
    ids=" ".join,
)
def test_what_other_settings_left_is_not_used(
    first: list[str], then: list[str], tiny: Path, tmp_path: Path, batches: list[int]
):
    out, whole = tmp_path / "a.png", tmp_path / "whole"
    assert grid(tiny, out, *first) == 130
    assert grid(tiny, out, *then) == 0
    assert len(batches) == 3 + 4
    assert grid(tiny, whole / "a.png", *then) == 0
    assert names(whole) == [name for name in names(tmp_path) if name != "whole"]
    assert all(
        np.array_equal(pixels(tmp_path / name), pixels(whole / name)) for name in names(whole)
    )


def test_a_damaged_image_is_drawn_again(tiny: Path, tmp_path: Path, batches: list[int]):
    out = tmp_path / "a.png"
    assert grid(tiny, out) == 130
    damaged = tmp_path / ".a.png.partial" / "00001.png"
    damaged.write_bytes(damaged.read_bytes()[:100])
    assert grid(tiny, out) == 0
    again = pixels(out)
    assert grid(tiny, out) == 0
    assert np.array_equal(pixels(out), again)


def test_a_smaller_grid_takes_what_is_there(tiny: Path, tmp_path: Path, batches: list[int]):
    out = tmp_path / "a.png"
    assert grid(tiny, out) == 130
    assert sample(tiny, out, "--num", "3") == 0
    assert len(batches) == 3  # nothing was left to draw
    assert names(tmp_path) == ["a.png"]
    assert pixels(out).shape[1] == 2 * 66 + 2


def test_a_grid_of_one_batch_is_kept_nowhere_else(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from ddpm_jax.cli import unfinished

    monkeypatch.delattr(unfinished.Unfinished, "save")
    assert sample(tiny, tmp_path / "a.png", "--num", "2") == 0
