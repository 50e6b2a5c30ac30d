"""The .bin reader: a file made by torch, and files that torch never makes."""

import builtins
import os
import pickle
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch_files as tf
from weights.folders import bits

from weights_convert import open_weights, to_flax

MADE = Path(__file__).parents[1] / "data" / "torch_made.bin"

base = np.arange(24, dtype=np.float32)
EXPECTED: dict[str, np.ndarray[Any, Any]] = {
    "contiguous": base.reshape(2, 3, 4),
    "shared_head": base[:6].reshape(2, 3),
    "shared_tail": base[6:].reshape(3, 6),
    "transposed": base.reshape(4, 6).T,
    "every_other": base[1::2],
    "expanded": np.array([[1.5, -2.0]] * 3, np.float32),
    "channels_last": base.reshape(1, 2, 3, 4),
    "scalar": np.array(-0.0, np.float32),
    "empty": np.zeros((0, 3), np.float32),
    "parameter": np.array([1, np.nan, np.inf], np.float32),
    "half": base[:5].astype(np.float16) / np.float16(3),
    "bfloat16": base[:5].astype(ml_dtypes.bfloat16) / ml_dtypes.bfloat16(3),
    "double": base[:5].astype(np.float64) / 3,
    "int64": np.array([2**40, -1]),
    "int32": np.array([2**30, -1], np.int32),
    "int16": np.array([2**14, -1], np.int16),
    "int8": np.array([100, -1], np.int8),
    "uint8": np.array([200, 1], np.uint8),
    "bool": np.array([True, False]),
}


def test_reads_what_torch_made() -> None:
    with open_weights(MADE) as checkpoint:
        assert checkpoint.shapes == {name: array.shape for name, array in EXPECTED.items()}
        assert checkpoint.dtypes == {name: array.dtype for name, array in EXPECTED.items()}
        assert bits(checkpoint) == bits(EXPECTED)
        assert all(checkpoint[name].flags.c_contiguous for name in checkpoint)
        checkpoint["shared_head"][:] = -1  # arrays of one storage do not share memory
        np.testing.assert_array_equal(checkpoint["transposed"], EXPECTED["transposed"])


@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize(
    ("function", "arguments", "name"),
    [
        (os.system, ("touch executed",), rf"{os.system.__module__}\.system"),
        (builtins.eval, ("open('executed', 'w')",), r"builtins\.eval|__builtin__\.eval"),
        (builtins.getattr, ("x", "upper"), r"builtins\.getattr|__builtin__\.getattr"),
        (subprocess.Popen, (["touch", "executed"],), r"subprocess\.Popen|commands\.Popen"),
    ],
)
def test_another_global_is_refused_by_name_and_nothing_runs(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    function: Any,
    arguments: tuple[Any, ...],
    name: str,
    protocol: int,
) -> None:
    monkeypatch.chdir(tmp_path)
    pickled = pickle.dumps({"w": tf.Runs(function, *arguments)}, protocol)
    path = tf.write_zip(tmp_path / "evil.bin", pickled, {})
    with pytest.raises(ValueError, match=rf"evil\.bin: its pickle uses ({name}), which"):
        open_weights(path)
    assert not (tmp_path / "executed").exists()


ALLOWED = tf.named("collections OrderedDict")
VIEW = tf.tensor("0", "FloatStorage", 4, 0, (4,), (1,))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (tf.named("torch._utils _rebuild_tensor_v2.__globals__") + b")R", "uses torch._utils"),
        (b"(" + b"ios\nsystem\n", "opcode INST"),
        (b"(" + ALLOWED + b"o", "opcode OBJ"),
        (ALLOWED + b")\x81", "opcode NEWOBJ"),
        (b"\x82\x01", "opcode EXT1"),
        (b"Pid\n", "opcode PERSID"),
        (ALLOWED + b"}b", "damaged"),  # BUILD on the class itself
        (tf.text("os") + tf.text("system") + b"\x93", "uses os.system"),
        (tf.named("torch FloatStorage") + b")R", "damaged"),  # calls a type
        (tf.storage("0", "FloatStorage", 4), "more than named tensors: 'w' .Storage"),
        (ALLOWED + b")R", "more than named tensors: 'w' .dict"),
        (b"K\x07", "more than named tensors: 'w' .int"),
        (b"h\x63", "damaged"),  # a memo that was never put
        (b"", "damaged"),  # a name without a value
        (b"00", "damaged"),
        (b"e", "damaged"),
        (tf.tensor("../../other/data/0", "FloatStorage", 4, 0, (4,), (1,)), "is missing"),
    ],
)
def test_opcodes_beyond_a_state_dict_are_refused(
    tmp_path: Path, value: bytes, message: str
) -> None:
    path = tf.write_zip(tmp_path / "w.bin", tf.state_dict({"w": value}), {"data/0": bytes(16)})
    with pytest.raises(ValueError, match=message):
        open_weights(path)


@pytest.mark.parametrize(
    ("view", "message"),
    [
        ((4, 0, (5,), (1,)), "beyond its storage"),
        ((4, 1, (4,), (1,)), "beyond its storage"),
        ((4, 0, (2, 2), (3, 2)), "beyond its storage"),
        ((4, -1, (2,), (1,)), "offset -1"),
        ((4, 3, (2,), (-1,)), "strides"),
        ((4, 0, (-1,), (1,)), "shape"),
        ((4, 0, (4,), (1, 1)), "strides"),
        ((5, 0, (4,), (1,)), "16 bytes, not 20"),
        ((3, 0, (3,), (1,)), "16 bytes, not 12"),
        ((2**62, 0, (2**62,), (1,)), "bytes, not"),
        ((-4, 0, (0,), (1,)), "damaged"),
    ],
)
def test_views_with_wrong_sizes(
    tmp_path: Path, view: tuple[int, int, tuple[int, ...], tuple[int, ...]], message: str
) -> None:
    pickled = tf.state_dict({"w": tf.tensor("0", "FloatStorage", *view)})
    path = tf.write_zip(tmp_path / "w.bin", pickled, {"data/0": bytes(16)})
    with pytest.raises(ValueError, match=message):
        open_weights(path)


@pytest.mark.parametrize(
    ("records", "options", "message"),
    [
        ({}, {}, "w: its storage data/0 is missing"),
        ({"data/0": bytes(16), "byteorder": b"big"}, {}, "little-endian"),
        ({"data/0": bytes(16)}, {"compression": zipfile.ZIP_DEFLATED}, "compressed or encrypted"),
        ({"data/0": bytes(16)}, {"root": "a/b"}, "0 data.pkl"),
    ],
)
def test_zips_that_torch_does_not_write(
    tmp_path: Path, records: dict[str, bytes], options: dict[str, Any], message: str
) -> None:
    path = tf.write_zip(tmp_path / "w.bin", tf.state_dict({"w": VIEW}), records, **options)
    with pytest.raises(ValueError, match=message):
        open_weights(path)


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")  # from zipfile on writing
def test_a_zip_with_two_records_of_one_name(tmp_path: Path) -> None:
    path = tf.write_zip(tmp_path / "w.bin", tf.state_dict({"w": VIEW}), {"data/0": bytes(16)})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/data/0", bytes(range(16)))
    with pytest.raises(ValueError, match="two records with the same name"):
        open_weights(path)


def test_a_truncated_zip(tmp_path: Path) -> None:
    whole = tf.save(tmp_path / "w.bin", {"w": base}).read_bytes()
    for length in range(0, len(whole), 37):
        (tmp_path / "cut.bin").write_bytes(whole[:length])
        with pytest.raises(ValueError, match="truncated"):
            open_weights(tmp_path / "cut.bin")


def test_a_changed_byte_is_found_by_the_checksum(tmp_path: Path) -> None:
    path = tf.save(tmp_path / "w.bin", {"w": base})
    whole = bytearray(path.read_bytes())
    whole[whole.index(base.tobytes()) + 5] ^= 1
    path.write_bytes(whole)
    with open_weights(path) as checkpoint, pytest.raises(ValueError, match=r"w: .* checksum"):
        checkpoint["w"]


@pytest.mark.parametrize("dtype", [ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2])
def test_float8(tmp_path: Path, dtype: Any) -> None:
    """Its tensors have untyped storages, and name their dtype."""
    every = np.arange(256, dtype=np.uint8)
    name = np.dtype(dtype).name
    kind = b"torch.storage\nUntypedStorage"
    view = tf.tensor("0", "FloatStorage", 256, 0, (256,), (1,))
    view = view.replace(b"_tensor_v2", b"_tensor_v3").replace(b"torch\nFloatStorage", kind)
    view = view.removesuffix(b"tR") + tf.named(f"torch {name}") + b"tR"
    path = tf.write_zip(
        tmp_path / "w.bin", tf.state_dict({"w.bias": view}), {"data/0": every.tobytes()}
    )
    with open_weights(path) as checkpoint:
        assert checkpoint.dtypes["w.bias"] == np.dtype(dtype)
        assert checkpoint["w.bias"].tobytes() == every.tobytes()
        assert to_flax(checkpoint)["w"]["bias"].tobytes() == every.tobytes()
