"""Convert folders and files, as a function and as a command."""

import json
import os
import re
import shutil
import stat
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch_files
from safetensors.numpy import load_file, save_file
from weights.folders import (
    DIGITS,
    INDEX,
    WEIGHTS,
    bits,
    component,
    files,
    numbered,
    peak_memory,
    pipeline,
)

from weights_convert import convert, find_weights, open_weights
from weights_convert.convert import Dtype


def test_the_digits_there_and_back(tmp_path: Path) -> None:
    (report,) = convert(DIGITS, tmp_path / "there").parts
    size = "268 tensors, 1,623,169 params, float32, 6,492,676 bytes"
    assert str(report) == f"{DIGITS / 'unet' / WEIGHTS} -> {report.destination}: {size}"
    assert report.destination == find_weights(tmp_path / "there" / "unet")
    for name in ("model_index.json", "unet/config.json", "scheduler/scheduler_config.json"):
        found = json.loads((tmp_path / "there" / name).read_text())
        assert found == json.loads((DIGITS / name).read_text())
    convert(tmp_path / "there", tmp_path / "back", to="diffusers")
    assert files(tmp_path / "back") == files(DIGITS)
    written, given = (load_file(root / "unet" / WEIGHTS) for root in (tmp_path / "back", DIGITS))
    assert bits(written) == bits(given)


@pytest.mark.parametrize("name", ["UNet2DModel", ["my_unet", "MyUNet"]])
def test_a_component_stays_a_component(tmp_path: Path, name: str | list[str]) -> None:
    """A class of custom code too, which has a list of its file and its class."""
    source = component(tmp_path / "unet", _class_name=name)
    convert(source, tmp_path / "out")
    assert files(tmp_path / "out") == {"config.json", "diffusion_flax_model.safetensors"}
    assert (tmp_path / "out" / "config.json").read_bytes() == (source / "config.json").read_bytes()


def test_a_folder_of_the_first_release_gets_todays_names(tmp_path: Path) -> None:
    """Classes in the index and in the configs, and fields that have another name today."""
    old = {"_class_name": "DDPM", "unet": ["diffusers", "UNetUnconditionalModel"]}
    source = pipeline(tmp_path / "old", **INDEX | old)
    network = {"_class_name": "UNetUnconditionalModel", "image_size": 8, "in_channels": 1}
    (source / "unet" / "config.json").write_text(json.dumps(network))
    scheduler = {"_class_name": "DDPMScheduler", "timesteps": 40, "tensor_format": "pt"}
    (source / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))
    convert(source, tmp_path / "new", to="diffusers")

    def read(name: str) -> dict[str, object]:
        return json.loads((tmp_path / "new" / name).read_text())

    assert read("model_index.json")["_class_name"] == "DDPMPipeline"
    assert read("model_index.json")["unet"] == ["diffusers", "UNet2DModel"]
    assert read("unet/config.json") == {
        "_class_name": "UNet2DModel",
        "sample_size": 8,
        "in_channels": 1,
    }
    assert read("scheduler/scheduler_config.json")["num_train_timesteps"] == 40


def test_a_flat_repository_becomes_nested(tmp_path: Path) -> None:
    nested = pipeline(tmp_path / "nested", **INDEX)
    flat_one = component(tmp_path / "flat")
    shutil.copy(nested / "model_index.json", flat_one)
    shutil.copy(nested / "scheduler" / "scheduler_config.json", flat_one)
    convert(flat_one, tmp_path / "a", to="diffusers")
    convert(nested, tmp_path / "b", to="diffusers")
    assert files(tmp_path / "a") == files(tmp_path / "b") == files(nested)
    for name in files(nested):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize(
    ("method", "name"),
    [
        ("DDPMScheduler", "DDPMPipeline"),
        ("DDIMScheduler", "DDIMPipeline"),
        ("PNDMScheduler", "PNDMPipeline"),
        ("EulerDiscreteScheduler", "DDPMPipeline"),
        ("CMStochasticIterativeScheduler", "ConsistencyModelPipeline"),
    ],
)
def test_a_missing_model_index_is_made(tmp_path: Path, method: str, name: str) -> None:
    convert(pipeline(tmp_path / "src", method), tmp_path / "out")
    assert json.loads((tmp_path / "out" / "model_index.json").read_text()) == {
        "_class_name": name,
        "scheduler": ["diffusers", method],
        "unet": ["diffusers", "UNet2DModel"],
    }


def test_a_folder_with_only_a_unet_gets_no_index(tmp_path: Path) -> None:
    component(tmp_path / "src" / "unet")
    convert(tmp_path / "src", tmp_path / "out")
    assert files(tmp_path / "out") == {"unet/config.json", "unet/diffusion_flax_model.safetensors"}


@pytest.mark.parametrize("name", ["vqvae", "../other", "/etc", "..", ".", "scheduler"])
def test_missing_components(tmp_path: Path, name: str) -> None:
    (tmp_path / "other").mkdir()
    source = pipeline(tmp_path / "src", **INDEX | {name: ["diffusers", "VQModel"]})
    if name == "scheduler":
        shutil.rmtree(source / name)
    with pytest.raises(ValueError, match=f"names components that do not exist: {re.escape(name)}"):
        convert(source, tmp_path / "out")


@pytest.mark.parametrize("config", [True, False])
def test_a_lone_file(tmp_path: Path, config: bool) -> None:
    (tmp_path / "in").mkdir()
    if config:
        (tmp_path / "in" / "config.json").write_text("{}")
    state = {"mid.attentions.0.query.weight": numbered(2, 2)[:, :, None, None]}
    file = torch_files.save(tmp_path / "in" / "old.pt", state)
    report = convert(file, tmp_path / "out", to="diffusers")
    assert files(tmp_path / "out") == {WEIGHTS} | ({"config.json"} if config else set())
    assert ("no config.json" in str(report)) is not config
    found = load_file(tmp_path / "out" / WEIGHTS)
    np.testing.assert_array_equal(found["mid_block.attentions.0.to_q.weight"], numbered(2, 2))


def test_an_orbax_folder_as_the_source(tmp_path: Path) -> None:
    convert(component(tmp_path / "src"), tmp_path / "a", to="orbax")
    convert(tmp_path / "a" / "diffusion_flax_model.orbax", tmp_path / "b", to="diffusers")
    assert files(tmp_path / "b") == {"config.json", WEIGHTS}


def test_the_variant_is_read_in_its_dtype(tmp_path: Path) -> None:
    source = component(tmp_path / "src")
    half = {"conv_in.bias": numbered(3).astype(np.float16), "conv_out.bias": numbered(3)}
    save_file(half, source / "diffusion_pytorch_model.fp16.safetensors")
    (report,) = convert(source, tmp_path / "out", variant="fp16").parts
    assert str(report).endswith(": 2 tensors, 6 params, 1 float16, 1 float32, 18 bytes")
    with open_weights(report.destination) as checkpoint:
        assert bits(checkpoint) == bits(half)
    with pytest.raises(ValueError, match="is one checkpoint"):
        convert(source / WEIGHTS, tmp_path / "other", variant="fp16")


def test_memory_is_two_tensors(tmp_path: Path) -> None:
    count, width = 16, 512
    tensor = width * width * 4  # bytes: 1 MiB
    state = {f"m.{i}.weight": numbered(width, width) for i in range(count)}
    save_file(state, tmp_path / "w.safetensors")
    del state
    for kind in ("flax", "diffusers"):
        run = partial(convert, tmp_path / "w.safetensors", tmp_path / kind, to=kind)
        peak = peak_memory(run)
        assert peak <= 2 * tensor + tensor // 4  # a quarter for everything else


def test_permissions_are_those_of_new_files(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        (report,) = convert(component(tmp_path / "src"), tmp_path / "out").parts
    finally:
        os.umask(before)
    assert stat.S_IMODE(report.destination.stat().st_mode) == 0o644
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o755


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_weights_in_another_dtype(tmp_path: Path, dtype: Dtype):
    (report,) = convert(DIGITS, tmp_path / "cast", to="diffusers", dtype=dtype).parts
    assert report.dtypes == {dtype: report.tensors}
    written = load_file(tmp_path / "cast" / "unet" / WEIGHTS)
    for name, tensor in load_file(DIGITS / "unet" / WEIGHTS).items():
        assert written[name].dtype == dtype
        assert np.array_equal(written[name], tensor.astype(dtype))  # rounded once


def test_a_number_too_large_for_a_dtype(tmp_path: Path):
    folder = component(tmp_path / "large")
    state = {"conv_in.bias": np.float32([1, 7e4, -3]), "conv_in.weight": numbered(3, 1, 3, 3)}
    save_file(state, folder / WEIGHTS)
    with pytest.raises(ValueError, match=r"conv_in\.bias contains 7e\+04, too large for float16"):
        convert(folder, tmp_path / "cast", dtype="float16")
    assert not (tmp_path / "cast").exists()
