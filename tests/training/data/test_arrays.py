"""Images in .npy and .npz files: shapes, types, ranges, labels."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from training.data.sources import RNG, assert_same, opened


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_npy_of_any_number_of_channels(tmp_path: Path, channels: int):
    made = RNG.integers(0, 256, (6, 9, 7, channels), np.uint8)
    np.save(tmp_path / "x.npy", made)
    source = opened(tmp_path / "x.npy")
    assert (len(source), source.shape) == (6, (9, 7, channels))
    np.testing.assert_allclose(source[5]["image"], made[5] / 127.5 - 1, atol=1e-6)
    assert opened(tmp_path / "x.npy", resolution=4, channels=channels).shape == (4, 4, channels)
    with pytest.raises(ValueError, match=f"has {channels} channels.*got channels=4"):
        opened(tmp_path / "x.npy", channels=4)


@pytest.mark.parametrize("dtype", [">u2", "<f8", "f2", ">f4"])
def test_types_of_arrays(tmp_path: Path, dtype: str):
    shares = np.linspace(0, 1, 2 * 4 * 4).reshape(2, 4, 4)
    made = (shares * 65535).round() if "u" in dtype else shares
    np.save(tmp_path / "x.npy", made.astype(dtype))
    source = opened(tmp_path / "x.npy")
    assert source.shape == (4, 4, 1)
    got = np.stack([source[i]["image"] for i in range(2)])[..., 0]
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, 2 * shares - 1, atol=2e-3 if dtype == "f2" else 2e-5)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (np.zeros((2, 4, 4), np.int64), "holds int64; images are uint8"),
        (np.zeros((2, 4, 4), bool), "holds bool"),
        (np.zeros((4, 4), np.uint8), r"shape \(4, 4\)"),
        (np.zeros((0, 4, 4), np.uint8), r"shape \(0, 4, 4\)"),
        (np.zeros((2, 3, 8, 8), np.uint8), r"channels first.*transpose\(0, 2, 3, 1\)"),
        (np.full((2, 4, 4), 255.0), r"floats must lie in \[0, 1\], got 255 to 255"),
        (np.full((2, 4, 4), -1.0), "got -1 to -1"),
        (np.full((2, 4, 4), np.nan), "got nan"),
        (np.array([["a", None]], object), "cannot be read as an array of numbers"),
    ],
)
def test_arrays_that_are_not_images(tmp_path: Path, made: np.ndarray, message: str):
    np.save(tmp_path / "x.npy", made)
    with pytest.raises(ValueError, match=message):
        opened(tmp_path / "x.npy")


@pytest.mark.parametrize("made", [np.array([[2], [0], [1]]), np.array([True, False, True])])
def test_columns_and_flags_are_labels(tmp_path: Path, made: np.ndarray):
    images = RNG.integers(0, 256, (3, 4, 4), np.uint8)
    np.savez(tmp_path / "a.npz", images=images, labels=made)
    source = opened(tmp_path / "a.npz", labels=True)
    assert [int(source[i]["label"]) for i in range(3)] == made.ravel().astype(int).tolist()


def test_npz(tmp_path: Path):
    images, labels = RNG.integers(0, 256, (5, 4, 4, 3), np.uint8), np.array([2, 0, 1, 0, 5])
    for name, path in {"images": "a.npz", "x": "b.npz", "arr_0": "c.npz"}.items():
        np.savez(tmp_path / path, **{name: images, "y": labels})
        source = opened(tmp_path / path, labels=True)
        assert source.num_classes == 6
        assert source.classes is None
        assert [int(source[i]["label"]) for i in range(5)] == labels.tolist()
    np.savez(tmp_path / "d.npz", faces=images, age=labels.astype(float), kind=labels - 1)
    assert len(opened(tmp_path / "d.npz", image_column="faces")) == 5
    with pytest.raises(ValueError, match=r"holds faces, age, kind, not image or .* image_column"):
        opened(tmp_path / "d.npz")
    columns = {"image_column": "faces", "labels": True}
    with pytest.raises(ValueError, match=r"not label or labels or y: .* label_column"):
        opened(tmp_path / "d.npz", **columns)
    with pytest.raises(ValueError, match="5 whole numbers; got float64"):
        opened(tmp_path / "d.npz", **columns, label_column="age")
    with pytest.raises(ValueError, match="got -1 to 4, and -1 means that an image has no label"):
        opened(tmp_path / "d.npz", **columns, label_column="kind")


def test_damaged_array_files(tmp_path: Path):
    for name in ("x.npy", "x.npz"):
        (tmp_path / name).write_bytes(b"nothing of the kind")
        with pytest.raises(ValueError, match="cannot be read"):
            opened(tmp_path / name)
    np.save(tmp_path / "x.npy", np.zeros((2, 4, 4), np.uint8))
    with pytest.raises(ValueError, match="has no labels"):
        opened(tmp_path / "x.npy", labels=True)


def test_array_files_are_not_sent_to_workers(tmp_path: Path):
    """A worker maps or reads the file itself; of 300 kB only the path is sent."""
    made = RNG.integers(0, 256, (100, 32, 32, 3), np.uint8)
    np.save(tmp_path / "x.npy", made)
    np.savez(tmp_path / "x.npz", image=made)
    for name in ("x.npy", "x.npz"):
        source = opened(tmp_path / name)
        sent = pickle.dumps(source)
        assert len(sent) < 2000
        assert_same(pickle.loads(sent), source)
