"""Fashion-MNIST: the reader of IDX files, the classifier, and the measures of a model."""

import gzip
import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ddpm_jax as dj
from ddpm_jax.cli import cache
from ddpm_jax.cli import main as command
from examples.fashion_mnist import classifier, measure, prepare


def idx(array: np.ndarray, kind: int = prepare.UBYTE) -> bytes:
    sizes = np.array(array.shape, ">u4").tobytes()
    return bytes([0, 0, kind, array.ndim]) + sizes + array.tobytes()


def write_source(folder: Path) -> dict[str, np.ndarray]:
    """The four files with 5 and 2 images, and what is in them."""
    folder.mkdir()
    rng, found = np.random.default_rng(0), {}
    for part, count in (("train", 5), ("t10k", 2)):
        for what, shape in (("images-idx3", (count, 28, 28)), ("labels-idx1", (count,))):
            array = rng.integers(0, 10, shape).astype(np.uint8)
            (folder / f"{part}-{what}-ubyte.gz").write_bytes(gzip.compress(idx(array)))
            found[f"{part}-{what}"] = array
    return found


def test_idx_files_become_arrays(tmp_path: Path) -> None:
    source = write_source(tmp_path / "source")
    prepare.main([str(tmp_path / "out"), "--source", str(tmp_path / "source")])
    for part, name in (("train", "train.npz"), ("t10k", "test.npz")):
        images, labels = classifier.read(tmp_path / "out" / name)
        np.testing.assert_array_equal(labels, source[f"{part}-labels-idx1"])
        np.testing.assert_array_equal(images[:, 2:30, 2:30, 0], source[f"{part}-images-idx3"])
        assert images.sum(dtype=int) == source[f"{part}-images-idx3"].sum(dtype=int)  # black border


def test_other_files_are_refused(tmp_path: Path) -> None:
    path, array = tmp_path / "x.gz", np.zeros((2, 3, 3), np.uint8)
    whole = gzip.compress(idx(array))
    for content, said in (
        (whole[:-12], "not a whole gzip file"),
        (b"no gzip", "not a whole gzip file"),
        (gzip.compress(idx(array)[:-1]), r"has 17 bytes, not those of shape \(2, 3, 3\)"),
        (gzip.compress(idx(array, kind=0x0D)), "not an IDX file of bytes"),
        (gzip.compress(b"\x00"), "not an IDX file of bytes"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=said):
            prepare.read_idx(path)


def test_a_missing_source_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        prepare.main([str(tmp_path), "--source", str(tmp_path / "no")])
    assert "apt install dataset-fashion-mnist" in capsys.readouterr().err


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 and 20 images whose class is where a bright square is, and their classifier."""
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for name, count in (("train.npz", 40), ("test.npz", 20)):
        labels = (np.arange(count) % 2).astype(np.uint8)
        images = rng.integers(0, 60, (count, 32, 32, 1)).astype(np.uint8)
        images[labels == 0, 4:12, 4:12] = 250
        images[labels == 1, 18:26, 18:26] = 250
        np.savez(folder / name, image=images, label=labels)
    classifier.train(folder, epochs=12)
    return folder


def test_the_classifier_is_scikit_learns(data: Path) -> None:
    """The network of the file reads as many test images right as the file says."""
    images, labels = classifier.read(data / "test.npz")
    network = classifier.features(data / classifier.NAME)
    found = dj.collect_features(network, [classifier.inner(images)])
    assert found.logits is not None
    assert found.features is not None
    assert found.features.shape == (20, classifier.HIDDEN)
    with np.load(data / classifier.NAME) as file:
        classes = file["last_bias"].size
    # scikit-learn has one output for two classes, and one for each of more.
    read = found.logits[:, 0] > 0 if classes == 1 else found.logits.argmax(1)
    accuracy = classifier.accuracy_of(data / classifier.NAME)
    assert accuracy == pytest.approx(np.mean(read == labels))
    assert accuracy > 0.9


def test_images_of_another_size_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", image=np.zeros((1, 28, 28, 1), np.uint8), label=np.zeros(1))
    with pytest.raises(ValueError, match=r"must have images \(N, 32, 32, 1\) and labels"):
        classifier.read(tmp_path / "x.npz")


def test_bits_are_those_of_the_picture_over_784(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bound of 1 bit for each of 1024 dimensions is 1024 / 784 bits a pixel."""

    def fake(denoise: Any, params: Any, scheduler: Any, x0: Any, keys: Any, **kw: Any) -> Any:
        assert kw == {"num_timesteps": 7}
        return Namespace(total=np.ones(len(x0)))

    monkeypatch.setattr(dj, "variational_bound", fake)
    given = Namespace(run="digits", work=tmp_path, timesteps=7)
    bits = measure.bits_per_pixel(given, np.zeros((3, 32, 32, 1), np.uint8), "f" * 64)
    np.testing.assert_allclose(bits, 1024 / 784)
    assert (tmp_path / "bound-ffffffffffff-7-timesteps").is_dir()


def test_what_is_missing_is_named_before_work(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for run, folder, said in (
        (tmp_path, data, "A training writes its model when it ends"),
        (tmp_path, tmp_path, "examples.fashion_mnist.prepare"),
    ):
        with pytest.raises(SystemExit):
            measure.main([str(run), str(folder), "--out", str(tmp_path)])
        assert said in capsys.readouterr().err
    assert not (tmp_path / "results.json").exists()


@pytest.mark.slow  # fast: its parts, above
def test_a_trained_run_is_measured(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "use", lambda folder: None)
    tiny = (
        "--model.block-out-channels 8 --model.down-block-types DownBlock2D "
        "--model.up-block-types UpBlock2D --model.layers-per-block 1 --model.norm-num-groups 4 "
        "--loop.steps 3 --loop.batch-size 4 --data.held-out 0"
    )
    run = tmp_path / "run"
    line = ["train", "--data.name", str(data / "train.npz"), "--out", str(run)]
    assert command([*line, *tiny.split()]) == 0
    few = "--num 8 --bound 6 --timesteps 5 --steps 3".split()
    folders = ["--out", str(tmp_path / "out"), "--work", str(tmp_path / "work")]
    measure.main([str(run), str(data), *few, *folders])
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert np.isfinite(found["bits"]["mean"])
    # Images of three updates are noise; training images are like test images.
    assert found["distance"] > found["distance_of_training_images"] >= 0
    assert "no FIDs of Inception-v3" in (tmp_path / "out" / "results.md").read_text()
    assert (tmp_path / "out" / "samples.png").is_file()


def test_the_text_of_the_results_is_of_their_numbers() -> None:
    result = json.loads((measure.HERE / "results.json").read_text())
    assert measure.markdown(result) == (measure.HERE / "results.md").read_text()
