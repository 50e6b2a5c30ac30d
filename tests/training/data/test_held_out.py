"""Held-out images: which they are, and the batches they come in."""

from pathlib import Path

import numpy as np
import pytest

from ddpm_jax.training.data import (
    Batch,
    Data,
    HeldOut,
    held_out_batches,
    held_out_indices,
    make_batches,
    open_source,
    training_indices,
)

pytest.importorskip("grain", reason="needs grain: pip install -e '.[train]'")

COUNT = 30


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("data") / "x.npz"
    images = np.random.default_rng(0).integers(0, 256, (COUNT, 8, 8, 1), np.uint8)
    np.savez(path, image=images, label=np.arange(COUNT) % 5)
    return str(path)


def held_out(file: str, processes: tuple[int, int] = (0, 1), **fields: object) -> HeldOut:
    data = Data(name=file, labels=True, flip=True, **fields)
    index, count = processes
    return held_out_batches(
        open_source(data), data, batch_size=4, process_index=index, process_count=count
    )


@pytest.mark.parametrize(
    ("share", "expected"),
    [(0, 0), (0.1, 3), (0.5, 15), (1e-9, 1), (1, 1), (7.0, 7), (29, 29)],
)
def test_how_many(share: float, expected: int):
    held, trained = held_out_indices(COUNT, share), training_indices(COUNT, share)
    assert len(held) == expected
    assert sorted([*held, *trained]) == list(range(COUNT))


@pytest.mark.parametrize("share", [30, 31, 0.99])
def test_some_are_left(share: float):
    with pytest.raises(ValueError, match="leaves no image to train on: there are 30"):
        held_out_indices(COUNT, share)


def test_they_are_spread_over_the_data():
    """Data sets are often sorted by class: a tenth of the images, about a tenth of each."""
    held = held_out_indices(10_000, 0.1)
    counts = np.histogram(held, bins=10, range=(0, 10_000))[0]
    assert np.abs(counts - 100).max() < 4.5 * np.sqrt(100 * 0.9 * 0.9)


def test_training_never_sees_them(file: str):
    data = Data(name=file, held_out=10)
    source = open_source(data)
    seen = set()
    for seed in range(3):
        stream = make_batches(source, data, batch_size=20, seed=seed)
        assert stream.images == 20
        seen |= set(next(stream)["index"].tolist())
    assert sorted([*seen, *held_out_indices(COUNT, 10)]) == list(range(COUNT))


def test_batches_in_order_filled_up(file: str):
    data = Data(name=file, labels=True)
    source = open_source(data)
    held = held_out(file, held_out=10)
    assert (len(held), held.images) == (3, 10)
    first, again = list(held), list(held)
    index = np.concatenate([batch["index"] for batch in first])
    assert index.tolist() == [*held_out_indices(COUNT, 10), -1, -1]
    for batch, same in zip(first, again, strict=True):
        assert batch["image"].shape == (4, 8, 8, 1)
        assert batch["weight"].dtype == np.float32
        assert batch["weight"].tolist() == (batch["index"] >= 0).tolist()
        for name in batch:
            np.testing.assert_array_equal(batch[name], same[name])
        for row in np.flatnonzero(batch["weight"]):
            item = source[int(batch["index"][row])]
            np.testing.assert_array_equal(batch["image"][row], item["image"])  # not flipped
            assert batch["label"][row] == item["label"]


def test_processes_share_each_batch(file: str):
    whole = list(held_out(file, held_out=10))
    halves = [list(held_out(file, (process, 2), held_out=10)) for process in (0, 1)]
    for batch, *parts in zip(whole, *halves, strict=True):
        union: Batch = {name: np.concatenate([part[name] for part in parts]) for name in batch}
        for name in batch:
            np.testing.assert_array_equal(union[name], batch[name])


def test_none_are_held_out(file: str):
    assert len(held_out(file)) == 0
    assert list(held_out(file)) == []


def test_sizes_are_checked(file: str):
    data = Data(name=file, held_out=3)
    with pytest.raises(ValueError, match="batch_size"):
        held_out_batches(open_source(data), data, batch_size=3, process_count=2)


def test_a_filled_up_row_next_to_16_bits(tmp_path: Path):
    """It is black, as next to 8 bits."""
    np.save(tmp_path / "x.npy", np.full((3, 4, 4), 65535, np.uint16))
    data = Data(name=str(tmp_path / "x.npy"), held_out=2)
    (batch,) = held_out_batches(open_source(data), data, batch_size=3)
    assert batch["image"].min((1, 2, 3)).tolist() == [1, 1, -1]
    assert batch["image"].max((1, 2, 3)).tolist() == [1, 1, -1]
