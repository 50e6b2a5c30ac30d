"""Find weights by name, read .safetensors and sharded checkpoints, refuse damaged ones."""

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch_files
from safetensors.numpy import load_file, save_file
from weights.folders import bits, numbered

from weights_convert import find_weights, open_weights, save_orbax, weight_files
from weights_convert.safetensors_io import write_safetensors
from weights_convert.tensors import stored_of

TORCH = "diffusion_pytorch_model"
Arrays = dict[str, np.ndarray[Any, Any]]


# Which file

IN_ORDER = [
    f"{TORCH}.safetensors.index.json",
    f"{TORCH}.safetensors",
    f"{TORCH}.bin.index.json",
    f"{TORCH}.bin",
    "diffusion_flax_model.safetensors",
    "diffusion_flax_model.orbax",
]
FP16_IN_ORDER = [
    f"{TORCH}.safetensors.index.fp16.json",
    f"{TORCH}.fp16.safetensors",
    f"{TORCH}.bin.index.fp16.json",
    f"{TORCH}.fp16.bin",
]


@pytest.mark.parametrize(("names", "variant"), [(IN_ORDER, None), (FP16_IN_ORDER, "fp16")])
def test_the_order_of_preference(tmp_path: Path, names: list[str], variant: str | None) -> None:
    others = FP16_IN_ORDER if variant is None else IN_ORDER
    for name in [*names, *others]:
        (tmp_path / name).touch()
    for name in names:
        assert find_weights(tmp_path, variant) == tmp_path / name
        (tmp_path / name).unlink()
    with pytest.raises(FileNotFoundError):
        find_weights(tmp_path, variant)


def test_the_error_lists_expected_and_present_files(tmp_path: Path) -> None:
    (tmp_path / "diffusion_flax_model.msgpack").touch()
    with pytest.raises(
        FileNotFoundError, match=rf"looked for {TORCH}.*found diffusion_flax.*msgpack"
    ):
        find_weights(tmp_path)
    with pytest.raises(FileNotFoundError, match="of variant 'fp16'"):
        find_weights(tmp_path, "fp16")
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        find_weights(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="no weights in the repository"):
        weight_files(["config.json"])


HUB = [
    "config.json",
    "README.md",
    f"{TORCH}.bin",
    f"{TORCH}.fp16.safetensors",
    f"{TORCH}.safetensors.index.json",
    f"{TORCH}-00002-of-00002.safetensors",
    f"{TORCH}-00001-of-00002.safetensors",
    f"{TORCH}-00001-of-00002.bin",
    f"{TORCH}.safetensors.index.ema.json",
    f"{TORCH}.ema-00001-of-00001.safetensors",
    f"{TORCH}-00001-of-00001.ema.safetensors",
    "diffusion_flax_model.orbax/_METADATA",
    "diffusion_flax_model.orbax/d/1",
]


@pytest.mark.parametrize(
    ("names", "variant", "chosen"),
    [
        (HUB, None, [HUB[4], HUB[6], HUB[5]]),
        (HUB, "fp16", [HUB[3]]),
        (HUB, "ema", [HUB[8], HUB[10], HUB[9]]),
        (HUB[:3], None, [HUB[2]]),
        (HUB[-2:], None, HUB[-2:]),
    ],
)
def test_files_to_fetch(names: list[str], variant: str | None, chosen: list[str]) -> None:
    assert weight_files(names, variant) == chosen


# safetensors, against the library

MIXED: Arrays = {
    "f32": numbered(2, 3),
    "f16": numbered(3).astype(np.float16),
    "f64": numbered(1, 2, 1, 2).astype(np.float64),
    "i64": np.array([2**40, -1]),
    "u8": np.array([255], np.uint8),
    "bool": np.array([True, False]),
    "scalar": np.array(-0.0, np.float32),
    "empty": np.zeros((0, 3), np.float32),
}


def test_reads_what_the_library_writes(tmp_path: Path) -> None:
    save_file(MIXED, tmp_path / "w.safetensors", {"format": "pt"})
    with open_weights(tmp_path / "w.safetensors") as checkpoint:
        assert checkpoint.shapes == {name: array.shape for name, array in MIXED.items()}
        assert checkpoint.dtypes == {name: array.dtype for name, array in MIXED.items()}
        assert bits(checkpoint) == bits(MIXED)


def test_the_library_reads_what_we_write(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "w.safetensors", stored_of(MIXED), {"format": "pt"})
    assert bits(load_file(tmp_path / "w.safetensors")) == bits(MIXED)


def raw(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def entry(shape: list[Any], begin: Any, end: Any, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_bfloat16_bits(tmp_path: Path) -> None:
    data = bytes([0x80, 0x3F, 0xC0, 0x7F])  # 1.0 and NaN, little-endian
    (tmp_path / "w.safetensors").write_bytes(raw({"w": entry([2], 0, 4, "BF16")}, data))
    with open_weights(tmp_path / "w.safetensors") as checkpoint:
        array = checkpoint["w"]
    assert (array.dtype, array.tobytes()) == (ml_dtypes.bfloat16, data)
    np.testing.assert_array_equal(array.astype(np.float32), [1, np.nan])


W = entry([2], 0, 8)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "neither a safetensors"),
        (b"\0" * 7, "neither a safetensors"),
        (b"<!DOCTYPE html><html>Not found</html>", "neither a safetensors"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (raw({"w": W}, bytes(7)), "truncated"),
        (raw({"w": W}, bytes(9)), "1 bytes at the end"),
        (raw({"w": W}, bytes(8), length=10**9), "header of 1000000000 bytes"),
        (raw({"w": W}, bytes(8), length=2**63), "header of"),
        (raw(b"{" * 100_000), "not JSON"),
        (raw(b'{"w": \xff}'), "not JSON"),
        (raw(b'{"w": 1'), "not JSON"),
        (raw({"w": 3}), "w: its header entry"),
        (raw({"w": {"dtype": "F32", "shape": [2]}}), "w: its header entry"),
        (raw({"w": entry([2], 0, 12)}, bytes(12)), "has 8 bytes, not 12"),
        (raw({"w": entry([3], 0, 8)}, bytes(8)), "has 12 bytes, not 8"),
        (raw({"w": entry([2**62, 8], 0, 8)}, bytes(8)), "bytes, not 8"),
        (raw({"w": entry([-2], 0, 8)}, bytes(8)), "non-negative integers"),
        (raw({"w": entry([2.0], 0, 8)}, bytes(8)), "non-negative integers"),
        (raw({"w": entry([True, 2], 0, 8)}, bytes(8)), "non-negative integers"),
        (raw({"w": entry([2], -8, 0)}, bytes(8)), "non-negative integers"),
        (raw({"w": entry([2], 0, 8, "F4")}, bytes(8)), "dtype 'F4' is not one of F64, F32"),
        (raw({"w": entry([2], 0, 8, [])}, bytes(8)), "not one of"),  # type: ignore[arg-type]
        (raw({"v": W, "w": entry([2], 4, 12)}, bytes(12)), "w: its data overlaps"),
        (raw({"v": W, "w": entry([2], 12, 20)}, bytes(20)), "w: its data leaves a gap"),
        (
            raw(b'{"w": %b, "w": %b}' % ((json.dumps(W).encode(),) * 2), bytes(8)),
            "duplicate names in the header: w",
        ),
    ],
)
def test_damaged_safetensors(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as raised:
        open_weights(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("length", [0x80, 0x0280, 0x4B50])
def test_the_header_length_may_look_like_another_format(tmp_path: Path, length: int) -> None:
    text = json.dumps({"w": entry([1], 0, 4)}, separators=(",", ":")).encode().ljust(length)
    (tmp_path / "w.safetensors").write_bytes(raw(text, bytes(4)))
    with open_weights(tmp_path / "w.safetensors") as checkpoint:
        assert checkpoint["w"].tolist() == [0]


def test_truncated_anywhere(tmp_path: Path) -> None:
    save_file({"v": numbered(3), "w": numbered(2, 2)}, tmp_path / "w.safetensors")
    whole = (tmp_path / "w.safetensors").read_bytes()
    for length in range(len(whole)):
        (tmp_path / "cut.safetensors").write_bytes(whole[:length])
        with pytest.raises(ValueError, match="truncated"):
            open_weights(tmp_path / "cut.safetensors")


def test_a_file_that_shrinks_after_it_was_opened(tmp_path: Path) -> None:
    save_file({"w": numbered(100_000)}, tmp_path / "w.safetensors")
    with open_weights(tmp_path / "w.safetensors") as checkpoint:
        with (tmp_path / "w.safetensors").open("r+b") as file:
            file.truncate(1000)
        with pytest.raises(ValueError, match="w: the file ended after"):
            checkpoint["w"]


@pytest.mark.parametrize("kind", ["safetensors", "bin", "old.bin", "orbax"])
def test_a_closed_checkpoint(tmp_path: Path, kind: str) -> None:
    path, state = tmp_path / f"w.{kind}", {"w.bias": numbered(3)}
    match kind:
        case "safetensors":
            save_file(state, path)
        case "bin":
            torch_files.save(path, state)
        case "old.bin":
            torch_files.save_old(path, state)
        case _:
            path = save_orbax(tmp_path, {"w": {"bias": numbered(3)}})
    with open_weights(path) as checkpoint:
        assert "w.bias" in checkpoint
        assert "v" not in checkpoint
    with pytest.raises(ValueError, match="closed"):
        checkpoint["w.bias"]


@pytest.mark.parametrize("name", ["none.safetensors", "none.safetensors.index.json"])
def test_no_such_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(FileNotFoundError, match="none"):
        open_weights(tmp_path / name)


def test_a_folder_that_is_not_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not an orbax checkpoint"):
        open_weights(tmp_path)
