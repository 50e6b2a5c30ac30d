"""Files of torch from before the zip format. tests/parity reads those that torch writes."""

from pathlib import Path

import numpy as np
import pytest
import torch_files as tf
from weights.folders import bits

from weights_convert import open_weights

ARRAYS = {
    "a.weight": np.arange(12, dtype=np.float32).reshape(3, 4),
    "a.bias": np.linspace(-1, 1, 3).astype(np.float16),
    "steps": np.array(7),
    "empty.bias": np.empty(0, np.float32),
}


def test_arrays_come_back(tmp_path: Path) -> None:
    with open_weights(tf.save_old(tmp_path / "w.pth", ARRAYS)) as found:
        assert bits(found) == bits(ARRAYS)


def test_views_share_a_storage(tmp_path: Path) -> None:
    base = np.arange(6, dtype=np.float32)
    items = {
        "whole": tf.tensor("9", "FloatStorage", 6, 0, (6,), (1,), old=True),
        "turned": tf.tensor("9", "FloatStorage", 6, 1, (2, 2), (1, 2), old=True),
    }
    path = tf.write_old(tmp_path / "w.pth", tf.state_dict(items), {"9": base})
    with open_weights(path) as found:
        np.testing.assert_array_equal(found["whole"], base)
        np.testing.assert_array_equal(found["turned"], [[1, 3], [2, 4]])


def test_every_truncation_is_found_when_the_file_is_opened(tmp_path: Path) -> None:
    whole = tf.save_old(tmp_path / "w.pth", ARRAYS).read_bytes()
    for length in [*range(1, len(whole), 9), len(whole) - 1]:
        (tmp_path / "cut.pth").write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"cut\.pth.*(damaged|truncated)"):
            open_weights(tmp_path / "cut.pth")


ONE = {"0": np.ones(3, np.float32)}
PICKLED = tf.state_dict({"w": tf.tensor("0", "FloatStorage", 3, 0, (3,), (1,), old=True)})


@pytest.mark.parametrize(
    ("storages", "header", "message"),
    [
        ({"0": np.ones(4, np.float32)}, None, "storage 0 has 4 items, not 3"),
        ({"0": np.ones(2, np.float32)}, None, "storage 0 has 2 items, not 3"),
        ({"1": np.ones(3, np.float32)}, None, "tensors that are not read: 1"),
        (ONE | {"1": np.ones(3, np.float32)}, None, "tensors that are not read: 1"),
        (ONE, (1, 1001, {"little_endian": True}), "not of torch.save"),
        (ONE, (0x1950A86A20F9469CFC6C, 1002, {}), "version 1002"),
        (ONE, (0x1950A86A20F9469CFC6C, 1001, {"little_endian": False}), "byte order"),
    ],
)
def test_files_that_torch_does_not_write(
    tmp_path: Path, storages: dict[str, np.ndarray], header: tuple | None, message: str
) -> None:
    options = {} if header is None else {"header": header}
    path = tf.write_old(tmp_path / "w.pth", PICKLED, storages, **options)
    with pytest.raises(ValueError, match=message):
        open_weights(path)


def test_a_storage_of_two_types(tmp_path: Path) -> None:
    items = {
        name: tf.tensor("0", kind, 3, 0, (3,), (1,), old=True)
        for name, kind in (("v", "FloatStorage"), ("w", "IntStorage"))
    }
    path = tf.write_old(tmp_path / "w.pth", tf.state_dict(items), ONE)
    with pytest.raises(ValueError, match="storage 0 has two types or sizes"):
        open_weights(path)


def test_nothing_in_the_file_runs(tmp_path: Path) -> None:
    """In any of its pickles."""
    evil = b"\x80\x02" + tf.named("os system") + tf.text("touch /tmp/owned") + b"\x85R."
    path = tf.write_old(tmp_path / "w.pth", evil, ONE)
    with pytest.raises(ValueError, match=r"uses os\.system"):
        open_weights(path)
    path.write_bytes(evil)
    with pytest.raises(ValueError, match=r"uses os\.system"):
        open_weights(path)
