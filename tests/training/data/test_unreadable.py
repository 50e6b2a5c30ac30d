"""Images that cannot be read: an error that names them, or left out before training."""

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddpm_jax.training.data import (
    Data,
    UnreadableImage,
    held_out_batches,
    held_out_indices,
    make_batches,
    open_source,
)

pytest.importorskip("grain", reason="needs grain: pip install -e '.[train]'")

COUNT = 12


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images in two classes, of which two end in the middle; their headers are sound."""
    rng = np.random.default_rng(0)
    for i in range(COUNT):
        file = tmp_path / "ab"[i % 2] / f"{i:02d}.png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(file)
        if i in (3, 8):
            file.write_bytes(file.read_bytes()[:400])
    return tmp_path


@pytest.mark.parametrize("held_out", [0, 4])
def test_an_error_names_the_image(folder: Path, held_out: int):
    data = Data(name=str(folder), held_out=held_out)
    source = open_source(data)
    with pytest.raises(UnreadableImage, match=r"(03|08)\.png cannot be read: .*truncated"):
        list(islice(make_batches(source, data, batch_size=4, seed=0), COUNT))


def test_of_a_held_out_image_too(folder: Path):
    data = Data(name=str(folder), held_out=11)
    with pytest.raises(UnreadableImage, match=r"\.png cannot be read"):
        list(held_out_batches(open_source(data), data, batch_size=4))
    assert len(held_out_indices(COUNT, 11)) == 11


def test_left_out_and_named(folder: Path, capsys: pytest.CaptureFixture[str]):
    data = Data(name=str(folder), labels=True, skip_unreadable=2)
    with pytest.warns(UserWarning, match="2 images cannot be read and are left out") as caught:
        source = open_source(data)
    (warning,) = caught
    for name in (folder / "b" / "03.png", folder / "a" / "08.png"):
        assert f"\n  {name}: " in str(warning.message)
    assert "12/12" in capsys.readouterr().err
    assert len(source) == COUNT - 2
    files = [Path(source.name_of(i)) for i in range(len(source))]
    assert not {"03.png", "08.png"} & {file.name for file in files}
    for i, file in enumerate(files):
        item = source[i]
        np.testing.assert_allclose(
            item["image"], np.asarray(Image.open(file)) / 127.5 - 1, atol=1e-6
        )
        assert item["label"] == "ab".index(file.parent.name)
    drawn = islice(make_batches(source, data, batch_size=5, seed=0), 2)
    assert sorted(i for batch in drawn for i in batch["index"].tolist()) == list(range(COUNT - 2))
    with pytest.warns(UserWarning, match="left out"):
        again = open_source(data)
    assert again.fingerprint == source.fingerprint
    assert again.fingerprint != open_source(Data(name=str(folder))).fingerprint


def test_more_than_allowed(folder: Path):
    with pytest.raises(UnreadableImage, match=r"2 images cannot be read, skip_unreadable allows 1"):
        open_source(Data(name=str(folder), skip_unreadable=1))


def test_not_one_can_be_read(tmp_path: Path):
    for i in range(COUNT):
        (tmp_path / f"{i}.png").write_bytes(b"")
    with pytest.raises(UnreadableImage) as caught:
        open_source(Data(name=str(tmp_path), skip_unreadable=100))
    lines = str(caught.value).splitlines()
    assert lines[0] == "12 images cannot be read, all there are:"
    assert len(lines) == 11
    assert lines[-1].endswith(" and 2 more")


def test_none_is_unreadable(folder: Path):
    for name in ("b/03.png", "a/08.png"):
        (folder / name).unlink()
    assert len(open_source(Data(name=str(folder), skip_unreadable=1))) == COUNT - 2


def test_a_broken_header_is_left_out(folder: Path):
    (folder / "a" / "00.png").write_bytes(b"text")
    with pytest.warns(UserWarning, match="3 images cannot be read"):
        assert len(open_source(Data(name=str(folder), skip_unreadable=3))) == COUNT - 3


def test_files_that_change_during_a_run(folder: Path):
    (folder / "b" / "03.png").unlink()
    (folder / "a" / "08.png").unlink()
    data = Data(name=str(folder))
    source = open_source(data)
    Image.new("RGB", (9, 5)).save(folder / "b" / "05.png")
    with pytest.raises(UnreadableImage, match=r"05\.png is 5x9x3, the other images are 16x16x3"):
        list(islice(make_batches(source, data, batch_size=4, seed=0), COUNT))
    (folder / "b" / "05.png").unlink()
    with pytest.raises(UnreadableImage, match=r"05\.png cannot be read: No such file"):
        list(islice(make_batches(source, data, batch_size=4, seed=0), COUNT))


def test_floats_out_of_range(tmp_path: Path):
    """A large array is checked at some places when it is opened."""
    images = np.zeros((1000, 2, 2), np.float32)
    images[5] = 2
    np.save(tmp_path / "x.npy", images)
    data = Data(name=str(tmp_path / "x.npy"))
    with pytest.raises(UnreadableImage, match=r"image 5 of .*got 2 to 2"):
        next(make_batches(open_source(data), data, batch_size=1000, seed=0))
    with pytest.warns(UserWarning, match="image 5 of"):
        assert len(open_source(Data(name=data.name, skip_unreadable=1))) == 999
