"""The stream of batches: its order, its state, and its share for each process."""

import json
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddpm_jax.training.data import Batch, Batches, Data, Source, make_batches, open_source

pytest.importorskip("grain", reason="needs grain: pip install -e '.[train]'")

COUNT = 23
"""Images of the tests: a prime, so that no batch size divides it."""

ALIKE = {"resolution": 6, "crop": "random", "flip": True, "labels": True}
"""Settings under which every random choice shows."""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Random images."""
    path = tmp_path_factory.mktemp("data") / "x.npz"
    images = np.random.default_rng(0).integers(0, 256, (COUNT, 8, 14, 3), np.uint8)
    np.savez(path, image=images, label=np.arange(COUNT) % 5)
    return str(path)


@pytest.fixture
def source(file: str) -> Source:
    return open_source(Data(name=file, **ALIKE))


def batches(file: str, *, batch_size: int = 4, seed: int = 0, **fields: object) -> Batches:
    data = Data(name=file, **{**ALIKE, **fields})
    return make_batches(open_source(data), data, batch_size=batch_size, seed=seed)


def assert_equal(one: Batch, other: Batch) -> None:
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], strict=True)


def indices(stream: Iterator[Batch], count: int) -> list[int]:
    return [int(i) for batch in islice(stream, count) for i in batch["index"]]


def test_what_a_batch_is(file: str):
    stream = batches(file, resolution=None, crop="center", flip=False)
    batch = next(stream)
    assert {name: (value.shape, value.dtype.name) for name, value in batch.items()} == {
        "image": ((4, 8, 14, 3), "float32"),
        "label": ((4,), "int32"),
        "index": ((4,), "int64"),
    }
    source = open_source(Data(name=file, labels=True))
    for row, index in enumerate(batch["index"]):
        np.testing.assert_array_equal(batch["image"][row], source[int(index)]["image"])
        assert batch["label"][row] == index % 5
    assert "label" not in next(batches(file, labels=False))


def test_every_epoch_is_another_order_of_all(file: str):
    drawn = indices(batches(file), COUNT)  # 4 * 23 images: four epochs, batches across them
    epochs = [drawn[e * COUNT : (e + 1) * COUNT] for e in range(4)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(COUNT))
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_half_of_the_images_are_flipped(tmp_path: Path):
    np.save(tmp_path / "x.npy", np.tile(np.array([0, 255], np.uint8), (1000, 1, 1)))
    data = Data(name=str(tmp_path / "x.npy"), flip=True)
    batch = next(make_batches(open_source(data), data, batch_size=4000, seed=0))
    flips = (batch["image"][:, 0, 0, 0] == 1).mean()
    assert abs(flips - 0.5) < 4.5 * np.sqrt(0.25 / 4000)


def test_crops_and_flips_are_drawn_each_time(file: str):
    """One image, in ten epochs: 5 crops of 6x10 pixels, each mirrored or not."""
    stream = batches(file)
    seen = [
        batch["image"][row].tobytes()
        for batch in islice(stream, 10 * COUNT // 4)
        for row in np.flatnonzero(batch["index"] == 3)
    ]
    assert len(seen) > 8
    assert len(set(seen)) > 5


def test_8_and_16_bits_in_one_batch(tmp_path: Path):
    """Their range is the same, and the 8-bit one's bits those of a batch of its own."""
    grey = np.arange(0, 256, 16, dtype=np.uint8).reshape(4, 4)
    Image.fromarray(grey).save(tmp_path / "1.png")
    Image.fromarray(np.full((4, 4), 65535, np.uint16)).save(tmp_path / "2.png")
    data = Data(name=str(tmp_path))
    source = open_source(data)
    batch = next(make_batches(source, data, batch_size=2, seed=0))
    for row, index in enumerate(batch["index"].tolist()):
        np.testing.assert_array_equal(batch["image"][row], source[index]["image"])
    np.testing.assert_allclose(source[0]["image"][..., 0], grey / 127.5 - 1, atol=1e-7)
    assert (source[1]["image"] == 1).all()


def test_seeds(file: str):
    """The next seed's orders are not those of the next epoch."""
    one, same = (indices(batches(file, seed=7, batch_size=COUNT), 3) for _ in range(2))
    assert one == same
    other = indices(batches(file, seed=8, batch_size=COUNT), 3)
    epochs = [tuple(drawn[e * COUNT : (e + 1) * COUNT]) for drawn in (one, other) for e in range(3)]
    assert len(set(epochs)) == 6


def test_fewer_images_than_a_batch(file: str):
    stream = batches(file, batch_size=3 * COUNT)
    drawn = next(stream)["index"]
    assert np.bincount(drawn, minlength=COUNT).tolist() == [3] * COUNT
    assert stream.position == 3 * COUNT


@pytest.mark.parametrize("at", [0, 5])
def test_restore_is_exact(file: str, at: int):
    stream = batches(file)
    list(islice(stream, at))
    state = json.loads(json.dumps(stream.state()))
    expected = list(islice(stream, 4))
    fresh = batches(file)
    next(fresh)
    for again in (fresh, stream):  # one of a new process, and the same one set back
        again.restore(state)
        assert again.state() == state
        for batch, value in zip(islice(again, 4), expected, strict=True):
            assert_equal(batch, value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "seed was 1 and is 0"),
        ({"images": 9}, "images was 9 and is 23"),
        ({"batch_size": 6}, "batch_size was 6 and is 4"),
        ({"files": "other"}, "files were added, removed or renamed"),
        ({"more": 1}, "state has .*position"),
    ],
)
def test_states_of_other_inputs_are_refused(file: str, change: dict[str, int | str], message: str):
    stream = batches(file)
    with pytest.raises(ValueError, match=message):
        stream.restore({**stream.state(), **change})


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_share_each_batch(file: str, processes: int):
    data = Data(name=file, **ALIKE)
    source = open_source(data)
    shares = [
        make_batches(source, data, batch_size=8, seed=0, process_index=p, process_count=processes)
        for p in range(processes)
    ]
    whole = batches(file, batch_size=8)
    shares[1].restore(shares[0].state())
    for _ in range(7):
        parts = [next(share) for share in shares]
        assert {len(part["index"]) for part in parts} == {8 // processes}
        union = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        assert_equal(union, next(whole))
    assert {share.position for share in shares} == {whole.position}


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"batch_size": 0}, "batch_size must be a positive multiple"),
        ({"batch_size": 2.0}, "batch_size"),
        ({"batch_size": 6, "process_count": 4}, "multiple of the 4 processes, got 6"),
        ({"process_index": 1}, "process_index must lie in 0..process_count - 1; got 1 of 1"),
        ({"process_count": 0}, "process_index"),
        ({"seed": -1}, "seed must be"),
    ],
)
def test_bad_sizes(
    source: Source, file: str, sizes: dict[str, int], message: str, as_users_run: None
):
    with pytest.raises(ValueError, match=message):
        make_batches(source, Data(name=file), **{"batch_size": 4, "seed": 0, **sizes})


def test_closing_and_going_on(file: str):
    stream, whole = batches(file), batches(file)
    for _ in range(3):
        assert_equal(next(stream), next(whole))
        stream.close()
        stream.close()


def test_an_error_of_a_thread_is_raised(file: str, monkeypatch: pytest.MonkeyPatch):
    """The batch is not lost: the next call returns it."""
    stream, expected = batches(file), next(batches(file))

    def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(Source, "image", fail)
        with pytest.raises(RuntimeError, match="a bug"):
            next(stream)
    assert_equal(next(stream), expected)


def test_missing_grain(source: Source, file: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "grain", None)
    with pytest.raises(ImportError, match=r"needs grain: pip install 'ddpm-jax\[train\]'"):
        make_batches(source, Data(name=file), batch_size=4, seed=0)


@pytest.mark.slow  # fast: test_package::test_host_rooms_import_no_jax
def test_no_device_is_touched(file: str):
    """jax may be imported, by the package and by grain, but its devices are never asked for."""
    code = (
        "from ddpm_jax.training.data import Data, make_batches, open_source\n"
        f"data = Data(name={file!r}, flip=True)\n"
        "batch = next(make_batches(open_source(data), data, batch_size=4, seed=0))\n"
        "from jax._src import xla_bridge\n"
        "print(batch['image'].shape, xla_bridge.backends_are_initialized())\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[3],
        check=True,
        capture_output=True,
        text=True,
    )
    assert run.stdout.strip() == "(4, 8, 14, 3) False"
