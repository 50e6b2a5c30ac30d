"""Pictures that cannot be read: named, replaced, counted, and an error where there are too many."""

import json
import warnings
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddpm_jax.training.data import (
    Batches,
    CorruptPictures,
    CorruptPictureWarning,
    Data,
    PictureError,
    Source,
    held_out_batches,
    held_out_indices,
    make_batches,
    open_source,
)
from ddpm_jax.training.data.rows import NOWHERE
from ddpm_jax.training.data.stream import Order, Stream

pytest.importorskip("grain", reason="needs grain: pip install -e '.[train]'")

COUNT = 12


def folder(path: Path, broken: tuple[int, ...] = (3, 7)) -> Path:
    """Pictures of which some end in the middle; their headers are sound."""
    path.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for i in range(COUNT):
        file = path / f"{i:02d}.png"
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(file)
        if i in broken:
            file.write_bytes(file.read_bytes()[:400])
    return path


def batches(path: Path, max_corrupt: int = 2, **more: int) -> Batches:
    data = Data(name=str(path), max_corrupt=max_corrupt, flip=True)
    return make_batches(open_source(data), data, **{"batch_size": 4, "seed": 0, **more})


def test_named_once_each_and_replaced(tmp_path: Path):
    stream = batches(folder(tmp_path / "d"))
    with pytest.warns(CorruptPictureWarning) as caught:
        drawn = list(islice(stream, 3 * COUNT // 4))
    texts = sorted(str(warning.message) for warning in caught)
    assert len(texts) == 2
    for text, name in zip(texts, ("03.png", "07.png"), strict=True):
        assert f"{tmp_path / 'd' / name} cannot be read and is skipped: " in text
        assert "truncated" in text
    assert all(batch["image"].shape == (4, 16, 16, 3) for batch in drawn)
    index = np.concatenate([batch["index"] for batch in drawn])
    assert set(index.tolist()) == set(range(COUNT)) - {3, 7}
    source = open_source(Data(name=str(tmp_path / "d")))
    for batch in drawn:
        for image, i in zip(batch["image"], batch["index"].tolist(), strict=True):
            sound = source[i]["image"]
            assert (image == sound).all() or (image == sound[:, ::-1]).all()


def test_one_too_many_is_an_error_that_names_all(tmp_path: Path):
    stream = batches(folder(tmp_path / "d"), max_corrupt=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CorruptPictureWarning)
        with pytest.raises(CorruptPictures) as caught:
            list(islice(stream, COUNT))
    assert "2 unreadable pictures, and max_corrupt allows 1" in str(caught.value)
    assert "03.png: " in str(caught.value)
    assert "07.png: " in str(caught.value)


def test_by_default_the_first_is_an_error(tmp_path: Path):
    stream = batches(folder(tmp_path / "d"), max_corrupt=0)
    with pytest.raises(CorruptPictures, match="1 unreadable pictures, and max_corrupt allows 0"):
        list(islice(stream, COUNT))


@pytest.mark.parametrize("allowed", [5, COUNT, 100])
def test_when_nothing_can_be_read(tmp_path: Path, allowed: int):
    stream = batches(folder(tmp_path / "d", broken=tuple(range(COUNT))), max_corrupt=allowed)
    message = "max_corrupt allows 5" if allowed == 5 else "not one of the pictures can be read"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CorruptPictureWarning)
        with pytest.raises(CorruptPictures, match=message):
            next(stream)


def test_little_is_tried_where_nothing_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A row gives up after one picture more than are allowed, not after all there are."""
    source = open_source(Data(name=str(folder(tmp_path / "d", broken=tuple(range(COUNT))))))
    tried: list[int] = []

    def read(asked: Source, index: int, *_: object) -> None:
        if asked is source:  # a thread of an earlier test's stream may still be reading ahead
            tried.append(index)
        raise PictureError("broken")

    monkeypatch.setattr(Source, "picture", read)
    order = Order(np.arange(COUNT), 0)
    stream = Stream(
        source=source, order=order, seed=0, limit=1, start=0, batch_size=4, first=0, rows=4
    )
    assert (stream[0]["index"] == NOWHERE).all()
    assert len(tried) == 2 * 4


def test_the_count_survives_a_restore(tmp_path: Path):
    stream = batches(folder(tmp_path / "d"))
    with pytest.warns(CorruptPictureWarning):
        list(islice(stream, COUNT // 4))
    state = json.loads(json.dumps(stream.state()))
    assert [index for index, _ in state["corrupt"]] == sorted(
        [3, 7], key=[*stream.corrupt.found].index
    )
    expected = list(islice(stream, 4))  # and no warning again, which would be an error here
    fresh = batches(tmp_path / "d")
    fresh.restore(state)
    for batch, value in zip(islice(fresh, 4), expected, strict=True):
        for name in batch:
            np.testing.assert_array_equal(batch[name], value[name])
    strict = batches(folder(tmp_path / "d", broken=(3, 7, 9)))
    strict.restore(state)
    with pytest.raises(CorruptPictures, match="3 unreadable pictures"):
        list(islice(strict, COUNT // 4))


def test_the_union_of_processes_is_the_same(tmp_path: Path):
    folder(tmp_path / "d")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CorruptPictureWarning)
        whole = list(islice(batches(tmp_path / "d"), 6))
        parts = [
            list(islice(batches(tmp_path / "d", process_index=p, process_count=2), 6))
            for p in (0, 1)
        ]
    for batch, one, two in zip(whole, *parts, strict=True):
        for name in batch:
            np.testing.assert_array_equal(np.concatenate([one[name], two[name]]), batch[name])


def test_a_file_that_goes_away(tmp_path: Path):
    folder(tmp_path / "d", broken=())
    stream = batches(tmp_path / "d", max_corrupt=1)
    (tmp_path / "d" / "05.png").unlink()
    with pytest.warns(CorruptPictureWarning, match=r"05\.png .*No such file"):
        list(islice(stream, COUNT // 4))


def test_a_picture_whose_size_has_changed(tmp_path: Path):
    folder(tmp_path / "d", broken=())
    stream = batches(tmp_path / "d", max_corrupt=1)
    Image.new("RGB", (9, 5)).save(tmp_path / "d" / "05.png")
    with pytest.warns(CorruptPictureWarning, match=r"comes out as 5x9x3, the others 16x16x3"):
        list(islice(stream, COUNT // 4))


def test_floats_out_of_range_where_nobody_looked(tmp_path: Path):
    """A big array is not read through before the run."""
    images = np.zeros((1000, 2, 2), np.float32)
    images[5] = 2
    np.save(tmp_path / "x.npy", images)
    data = Data(name=str(tmp_path / "x.npy"), max_corrupt=1)
    stream = make_batches(open_source(data), data, batch_size=1000, seed=0)
    with pytest.warns(CorruptPictureWarning, match=r"picture 5 of .*got 2 to 2"):
        assert 5 not in next(stream)["index"]


def test_held_out_pictures_count_with_the_others(tmp_path: Path):
    held = held_out_indices(COUNT, 4).tolist()
    trained = next(i for i in range(COUNT) if i not in held)
    folder(tmp_path / "d", broken=(held[1], trained))
    data = Data(name=str(tmp_path / "d"), held_out=4, max_corrupt=1)
    source = open_source(data)
    stream = make_batches(source, data, batch_size=4, seed=0)
    batches = held_out_batches(source, data, batch_size=4, corrupt=stream.corrupt)
    with pytest.warns(CorruptPictureWarning, match=f"{held[1]:02d}.png"):
        (batch,) = batches
    assert batch["weight"].tolist() == [1, 0, 1, 1]
    assert stream.state()["corrupt"][0][0] == held[1]
    with pytest.raises(CorruptPictures, match="2 unreadable pictures"):
        list(islice(stream, 2))
