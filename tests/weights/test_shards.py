"""Sharded checkpoints, and indexes that do not match their shards."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch_files
from safetensors.numpy import save_file
from weights.folders import numbered

from weights_convert import find_weights, open_weights

TORCH = "diffusion_pytorch_model"


def shard(folder: Path, weight_map: Any, kind: str = "safetensors") -> Path:
    index = folder / f"{TORCH}.{kind}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 8}, "weight_map": weight_map}))
    return index


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_shards(tmp_path: Path, kind: str) -> None:
    parts = [{"a.weight": numbered(2), "b.bias": numbered(3)}, {"c.weight": numbered(2, 2)}]
    names = [f"{TORCH}-0000{i}-of-00002.{kind}" for i in (1, 2)]
    for name, part in zip(names, parts, strict=True):
        save = save_file if kind == "safetensors" else lambda part, to: torch_files.save(to, part)
        save(part, tmp_path / name)
    weight_map = {"a.weight": names[0], "b.bias": names[0], "c.weight": names[1]}
    index = shard(tmp_path, weight_map, kind)
    assert find_weights(tmp_path) == index
    with open_weights(index) as checkpoint:
        assert checkpoint.shapes == {"a.weight": (2,), "b.bias": (3,), "c.weight": (2, 2)}
        np.testing.assert_array_equal(checkpoint["c.weight"], numbered(2, 2))
    with pytest.raises(ValueError, match="closed"):
        checkpoint["a.weight"]


@pytest.mark.parametrize(
    "name",
    ["../x.safetensors", "/etc/passwd", "sub/x.safetensors", "..\\x", "C:x", "..", "", "x\0"],
)
def test_shards_outside_the_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "model").mkdir()
    save_file({"w": numbered(2)}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="outside its folder"):
        open_weights(shard(tmp_path / "model", {"w": name}))


def test_a_shard_may_be_a_link_as_in_the_hub_cache(tmp_path: Path) -> None:
    (tmp_path / "snapshot").mkdir()
    save_file({"w": numbered(2)}, tmp_path / "blob")
    (tmp_path / "snapshot" / "one.safetensors").symlink_to("../blob")
    with open_weights(shard(tmp_path / "snapshot", {"w": "one.safetensors"})) as checkpoint:
        np.testing.assert_array_equal(checkpoint["w"], numbered(2))


def test_missing_shards_are_all_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"do not exist: one\.bin, two\.bin"):
        open_weights(shard(tmp_path, {"w": "two.bin", "v": "one.bin", "u": "one.bin"}))


def test_an_index_that_does_not_match_its_shards(tmp_path: Path) -> None:
    save_file({"v": numbered(2), "w": numbered(2)}, tmp_path / "one.safetensors")
    with pytest.raises(ValueError, match=r"u is not in one.*, w of one.safetensors is not in the"):
        open_weights(shard(tmp_path, {"v": "one.safetensors", "u": "one.safetensors"}))


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"weight_map": []}', '{"weight_map": {"w": 1}}', "[" * 100_000]
)
def test_damaged_indexes(tmp_path: Path, content: str) -> None:
    (tmp_path / "w.index.json").write_text(content)
    with pytest.raises(ValueError, match="weight_map"):
        open_weights(tmp_path / "w.index.json")


def test_a_shard_that_is_an_index_of_itself(tmp_path: Path) -> None:
    index = shard(tmp_path, {"w": f"{TORCH}.safetensors.index.json"})
    with pytest.raises(ValueError, match="other indexes as shards"):
        open_weights(index)
