"""The scripts of the papers' tables, on the bundled digits; the reader of CIFAR-10's archive."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ddpm_jax as dj
from ddpm_jax.cli import app, cache
from examples.paper_tables import (
    common,
    ddim_quality,
    ddim_reconstruction,
    ddpm_likelihood,
    ddpm_quality,
    prepare,
)
from examples.paper_tables.common import Line, Run
from examples.parts import in_parts

ALL = {
    "ddpm_quality": ddpm_quality,
    "ddim_quality": ddim_quality,
    "ddpm_likelihood": ddpm_likelihood,
    "ddim_reconstruction": ddim_reconstruction,
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder of its own, without the user's cache of programs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cache, "use", lambda folder: None)


def archive(path: Path, cut: int = 0, leave_out: str = "") -> np.ndarray:
    """Writes an archive with two images in each file, and returns its records, (12, 3073)."""
    records = np.random.default_rng(0).integers(0, 256, (12, prepare.RECORD)).astype(np.uint8)
    names = [*prepare.PARTS["train"], *prepare.PARTS["test"]]
    with tarfile.open(path, "w:gz") as tar:
        for i, name in enumerate(names):
            data = records[2 * i : 2 * i + 2].tobytes()
            data = data[: len(data) - cut]
            info = tarfile.TarInfo(f"{prepare.FOLDER}/{name}")
            info.size = len(data)
            if name != leave_out:
                tar.addfile(info, io.BytesIO(data))
    return records


def test_the_archive_of_cifar10_is_read(tmp_path: Path) -> None:
    records = archive(tmp_path / "a.tar.gz")
    prepare.main([str(tmp_path / "a.tar.gz"), str(tmp_path / "data")])
    train, test = (np.load(tmp_path / "data" / f"{part}.npz") for part in prepare.PARTS)
    assert train["image"].shape == (10, 32, 32, 3)
    assert test["label"].tolist() == records[10:, 0].tolist()
    # Pixel (row 2, column 5) of the last test image: red, green and blue lie 1024 bytes apart.
    red = 1 + 2 * 32 + 5
    assert test["image"][1, 2, 5].tolist() == records[11, [red, red + 1024, red + 2048]].tolist()


def test_another_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    archive(path, cut=1)
    with pytest.raises(ValueError, match=r"data_batch_1.bin has 6145 bytes, not a multiple"):
        prepare.read(path, prepare.PARTS["train"])
    archive(path, leave_out="test_batch.bin")
    with pytest.raises(ValueError, match=r"not a whole cifar-10-binary.tar.gz.*test_batch.bin"):
        prepare.read(path, prepare.PARTS["test"])
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match="not a whole"):
        prepare.read(path, prepare.PARTS["train"])


def test_what_is_missing_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """Before any work: the weights, the data, and how to get them."""
    for argv, said in (
        ([], ("'cifar10' is not a local folder", "ddpm-jax convert ema_diffusion_cifar10")),
        (["--model", "digits"], ("cifar10-data/train.npz is not there", "cifar-10-binary.tar.gz")),
        (["--quick", "--model", "digits"], ("leave out --model",)),
    ):
        with pytest.raises(SystemExit) as stop:
            ddpm_quality.main(argv)
        assert stop.value.code == 2
        error = capsys.readouterr().err
        assert all(words in error for words in said), error
    assert not Path("results").exists()


def test_a_quick_run_is_read_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ddim_reconstruction, "QUICK_STEPS", (10, 100))
    argv = ["--quick", "--num", "3", "--batch-size", "3"]
    ddim_reconstruction.main(argv)
    folder = Path("results/ddim_reconstruction")
    rows = json.loads((folder / "results.json").read_text())["rows"]
    assert 0 < rows["100"]["mse"] < rows["10"]["mse"] < 0.01  # more steps lose less
    table = (folder / "table.md").read_text()
    assert "| 10 steps | 0.00" in table
    assert "paper" not in table
    assert capsys.readouterr().out == table
    monkeypatch.setattr(ddim_reconstruction, "error", None)  # nothing is computed
    ddim_reconstruction.main(argv)
    with pytest.raises(SystemExit):
        ddim_reconstruction.main(["--quick", "--num", "2"])
    assert "is of another num" in capsys.readouterr().err


@pytest.mark.slow  # fast: the same of one script
@pytest.mark.parametrize("name", ALL)
def test_quick_runs(name: str) -> None:
    ALL[name].main(["--quick", "--num", "20", "--out", name])
    found = json.loads((Path(name) / "results.json").read_text())
    assert found["settings"]["num"] == 20
    lines = (Path(name) / "table.md").read_text().splitlines()
    cells = [line.split("|")[2] for line in lines if line.startswith("| ")]
    numbers = [float(cell) for cell in cells[2:]]  # below the head and its rule
    assert len(numbers) >= 2
    assert np.isfinite(numbers).all()


def test_cells_are_the_runs_of_the_paper() -> None:
    """All timesteps where there are 1000, and nothing clips but DDPM with the larger variance."""
    for eta in ddim_quality.PAPER:
        for steps in (10, 1000):
            words = [str(word) for word in ddim_quality.scheduler(eta, steps)]
            given: Any = app._parse(["sample", *words])
            table = given.table(given.make(), None)
            assert (table.refine is not None) == (eta == ddim_quality.HAT)
            assert (table.noise_scale is None) == (eta == "0.0")
            first = 999 if steps == 1000 else 800
            assert len(table) == steps
            assert (table.timestep[0], table.timestep[-1]) == (first, 0)


def test_the_table_has_the_papers_decimals(tmp_path: Path) -> None:
    settings = {"weights": "0123456789abcdef"}
    run = Run("m", "test", "d", 7, tmp_path, None, None, False, settings)
    common.finish(run, "Title", [Line("FID", 3.2149, "3.17"), Line("rate", 0.00002, "0.00000")])
    text = (tmp_path / "table.md").read_text()
    assert "| FID | 3.21 | 3.17 | +0.04 |" in text
    assert "| rate | 0.00002 | 0.00000 | +0.00002 |" in text


def test_means_over_parts_are_means_over_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three images in parts of two and one."""
    rng = np.random.default_rng(0)
    terms, mse = rng.random((2, 3, 5)).astype(np.float32)
    prior = rng.random(3).astype(np.float32)
    steps, ones = np.tile(np.arange(5), (3, 1)), np.ones((3, 5), np.float32)
    whole = dj.VariationalBound(prior + terms.sum(1), prior, steps, terms, ones, mse)

    def fake(denoise: Any, params: Any, scheduler: Any, x0: Any, keys: Any) -> dj.VariationalBound:
        every = dj.sample_keys(jax.random.key(0), 3)
        mine = (jax.random.key_data(every)[:, None] == jax.random.key_data(keys)[None]).all(-1)
        where = np.asarray(jnp.argmax(mine, axis=0))
        return dj.VariationalBound(*(part[where] for part in whole))

    monkeypatch.setattr(dj, "variational_bound", fake)
    run = Run("digits", "test", "digits", 3, tmp_path, None, 2, True, {})
    means = ddpm_likelihood.mean_bound(run, ddpm_likelihood.reverse_process(run))
    curve, expected = ddpm_likelihood.curve_of(means), dj.rate_distortion(whole).mean()
    np.testing.assert_allclose(curve.rate, expected.rate, rtol=1e-6)
    np.testing.assert_allclose(curve.distortion, expected.distortion, rtol=1e-6)
    np.testing.assert_allclose(means["total"], whole.total.mean(), rtol=1e-6)
    assert sorted(p.name for p in (tmp_path / "bound").iterdir()) == [
        "00000-00001.npz",
        "00002-00002.npz",
    ]


def test_parts_are_computed_once(tmp_path: Path) -> None:
    seen: list[int] = []

    def compute(first: int, images: np.ndarray) -> dict[str, np.ndarray]:
        seen.append(first)
        return {"sum": images.sum(0)}

    batches = [np.array([1, 2]), np.array([3])]
    first = [part["sum"].item() for part in in_parts(tmp_path / "p", batches, 3, compute)]
    again = [part["sum"].item() for part in in_parts(tmp_path / "p", batches, 3, compute)]
    assert first == again == [3, 3]
    assert seen == [0, 2]
