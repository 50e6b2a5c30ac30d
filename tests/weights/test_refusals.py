"""Conversions that are refused: nothing is written and nothing is lost."""

import inspect
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from weights.folders import DIGITS, WEIGHTS, component, files, pipeline

from weights_convert import convert, find_weights


@pytest.mark.parametrize(
    ("dst", "overwrite"), [(".", True), ("unet", True), ("unet/new", False), ("..", True)]
)
@pytest.mark.parametrize("link", [False, True])
def test_a_destination_in_or_around_the_source(
    tmp_path: Path, dst: str, overwrite: bool, link: bool
) -> None:
    source = pipeline(tmp_path / "a" / "src")
    before = files(tmp_path)
    if link:
        (tmp_path / "link").symlink_to("a")
        place = tmp_path / "link" / "src" / dst
    else:
        place = source / dst
    with pytest.raises(ValueError, match="is, contains or is inside"):
        convert(source, place, overwrite=overwrite)
    assert files(tmp_path / "a") == {name.removeprefix("a/") for name in before}


def test_the_folder_of_a_source_file_is_not_overwritten(tmp_path: Path) -> None:
    source = component(tmp_path / "src")
    with pytest.raises(ValueError, match="is, contains or is inside"):
        convert(source / WEIGHTS, source, overwrite=True)
    assert files(source) == {"config.json", WEIGHTS}


def test_an_existing_output_stays_without_overwrite(tmp_path: Path) -> None:
    source = component(tmp_path / "src")
    (tmp_path / "out").mkdir()  # an empty folder is filled
    convert(source, tmp_path / "out", to="flax")
    with pytest.raises(FileExistsError, match="exists"):
        convert(source, tmp_path / "out", to="diffusers")
    assert find_weights(tmp_path / "out").name == "diffusion_flax_model.safetensors"
    convert(source, tmp_path / "out", to="diffusers", overwrite=True)
    assert files(tmp_path / "out") == {"config.json", WEIGHTS}


def test_overwriting_does_not_delete_other_files(tmp_path: Path) -> None:
    source = component(tmp_path / "src")
    convert(source, tmp_path / "out")
    (tmp_path / "out" / "thesis.tex").write_text("years")
    with pytest.raises(ValueError, match=r"not overwritten: thesis\.tex"):
        convert(source, tmp_path / "out", overwrite=True)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="is not a folder"):
        convert(source, tmp_path / "file", overwrite=True)
    assert (tmp_path / "file").read_text() == "mine"


def test_an_interrupted_overwrite_keeps_the_old_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = component(tmp_path / "src")
    convert(source, tmp_path / "out")

    def torn(*_: Any, **__: Any) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["weights_convert.convert"], "write_torch", torn)
    with pytest.raises(KeyboardInterrupt):
        convert(source, tmp_path / "out", to="diffusers", overwrite=True)
    with pytest.raises(KeyboardInterrupt):
        convert(source, tmp_path / "new", to="diffusers")
    assert {path.name for path in tmp_path.iterdir()} == {"src", "out"}
    assert find_weights(tmp_path / "out").name == "diffusion_flax_model.safetensors"


def test_sources_that_cannot_be_converted(tmp_path: Path) -> None:
    def refused(message: str, kind: type[Exception] = ValueError) -> None:
        with pytest.raises(kind, match=message):
            convert(source, tmp_path / "out")
        assert not (tmp_path / "out").exists()

    source = tmp_path / "none"
    refused("does not exist", FileNotFoundError)
    source = component(tmp_path / "no_weights")
    (source / WEIGHTS).unlink()
    refused("looked for diffusion_pytorch_model", FileNotFoundError)
    source = component(tmp_path / "no_config")
    (source / "config.json").unlink()
    refused("has no config.json")
    source = component(tmp_path / "bad_config")
    (source / "config.json").write_text("[1]")
    refused("config.json must hold a JSON object, got list")
    source = component(tmp_path / "no_tensor")
    save_file({}, source / WEIGHTS)
    refused("contains no tensors")
    source = component(tmp_path / "integers")
    save_file({"a.bias": np.arange(2), "num_batches_tracked": np.arange(2)}, source / WEIGHTS)
    refused(r"integers.*a\.bias is int64.*no rule for num_batches_tracked")


def test_an_unknown_kind_or_dtype(tmp_path: Path) -> None:
    unchecked: Any = inspect.unwrap(convert)  # the tests' type checks would raise first
    with pytest.raises(ValueError, match="must be one of flax, orbax, diffusers"):
        unchecked(DIGITS, tmp_path / "out", to="msgpack")
    with pytest.raises(ValueError, match="dtype='int8': must be one of float32, float16, bfloat16"):
        unchecked(DIGITS, tmp_path / "out", dtype="int8")
