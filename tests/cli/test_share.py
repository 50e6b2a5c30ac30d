"""The division of a run among processes: every image is made once, whatever the number of them."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
from cli.sampling import names, pixels, sample

from ddpm_jax.cli import main
from ddpm_jax.cli.output import Folder
from ddpm_jax.cli.shards import Shards, division
from ddpm_jax.cli.share import Share
from ddpm_jax.models import UNet2DModel
from ddpm_jax.training.processes import LAUNCHERS, VARIABLES, find_place


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in [*VARIABLES, *(name for pair in LAUNCHERS.values() for name in pair)]:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize("num", [1, 7, 100])
@pytest.mark.parametrize("count", [1, 2, 3, 8])
@pytest.mark.parametrize("kind", ["png", "npz"])
def test_every_image_is_made_once(kind: str, num: int, count: int, tmp_path: Path):
    def part(index: int) -> list[int]:
        share = Share(index, count)
        if kind == "png":
            target: Folder | Shards = Folder(tmp_path, {}, strips=False, share=share)
        else:
            target = Shards(tmp_path, {}, size=4, each=lambda _: {}, classes=(), share=share)
        found = target.missing(num)
        assert target.own(num) == len(found)
        return found

    parts = [part(index) for index in range(count)]
    assert sorted(number for one in parts for number in one) == list(range(num))
    units = [len(one) if kind == "png" else len({i // 4 for i in one}) for one in parts]
    assert max(units) - min(units) <= 1


def test_shards_are_whole():
    assert [(one.first, one.last) for one in division(10, 4)] == [(0, 3), (4, 7), (8, 9)]
    assert [one.name for one in division(100_001, 100_000)] == [
        "00000-99999.npz",
        "100000-100000.npz",
    ]


def test_a_process_makes_its_part_and_leaves_the_others_alone(
    tiny: Path, tmp_path: Path, nothing_set: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """A damaged file of another process is that one's to make again."""
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert sample(tiny, whole, "--num", "5") == 0
    out.mkdir()
    (out / "00000.png").write_bytes(b"")
    nothing_set.setenv("JAX_NUM_PROCESSES", "2")
    nothing_set.setenv("JAX_PROCESS_ID", "1")
    capsys.readouterr()
    assert sample(tiny, out, "--num", "5") == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("process 1 of 2: 2 images in ")
    assert "made again" not in captured.err
    assert names(out) == ["00000.png", "00001.png", "00003.png"]
    nothing_set.setenv("JAX_PROCESS_ID", "0")
    assert sample(tiny, out, "--num", "5") == 0
    assert "00000.png is damaged" in capsys.readouterr().err
    for name in names(whole):
        np.testing.assert_array_equal(pixels(out / name), pixels(whole / name))


def test_a_grid_is_refused_before_anything_is_read(
    tiny: Path, tmp_path: Path, nothing_set: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    nothing_set.setenv("JAX_NUM_PROCESSES", "2")
    nothing_set.setenv("JAX_PROCESS_ID", "0")
    nothing_set.setattr(UNet2DModel, "read_model", None)
    assert sample(tiny, tmp_path / "a.png") == 2
    assert "2 processes cannot share a grid: pass a folder to --out" in capsys.readouterr().err


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_launchers_say_it_when_asked(launcher: str, nothing_set: pytest.MonkeyPatch):
    count, index = LAUNCHERS[launcher]
    nothing_set.setenv(count, "4")
    nothing_set.setenv(index, " 3 ")
    assert find_place() == (0, 1)
    assert find_place(detect=True) == (3, 4)
    nothing_set.setenv("JAX_NUM_PROCESSES", "2")  # which come first
    nothing_set.setenv("JAX_PROCESS_ID", "1")
    assert find_place(detect=True) == (1, 2)


def test_a_batch_script_of_slurm_without_srun_is_no_cluster(
    nothing_set: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """It would make one part and say that it is done."""
    nothing_set.setenv("SLURM_NTASKS", "4")
    nothing_set.setenv("SLURM_PROCID", "0")
    assert main("sample --cluster --out x".split()) == 2
    assert "no cluster is found: start the processes by Slurm's srun" in capsys.readouterr().err
    assert not os.path.exists("x")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"JAX_NUM_PROCESSES": "2"}, "missing: JAX_PROCESS_ID"),
        ({"JAX_COORDINATOR_ADDRESS": "a:1"}, "missing: JAX_NUM_PROCESSES"),
        ({"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "2"}, "must be below 2"),
        (
            {"JAX_NUM_PROCESSES": "0", "JAX_PROCESS_ID": "-1"},
            "JAX_NUM_PROCESSES must be .* at least 1, got '0'; JAX_PROCESS_ID .* got '-1'",
        ),
    ],
)
def test_faulty_places(
    given: dict[str, str],
    words: str,
    nothing_set: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    for name, value in given.items():
        nothing_set.setenv(name, value)
    assert main("sample --out x".split()) == 2
    assert re.search(words, capsys.readouterr().err)
