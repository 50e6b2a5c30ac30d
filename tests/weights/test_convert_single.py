"""A Stable Diffusion in one file becomes a folder."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file
from weights import ldm_files as ldm
from weights.folders import WEIGHTS, bits, component, files, peak_memory

from ddpm_jax.schedulers import DDIMScheduler
from weights_convert import SingleOptions, convert, open_weights, to_flax
from weights_convert.__main__ import main

Parts = dict[str, ldm.Arrays]
NULL = [None, None]


@pytest.fixture(scope="module")
def parts() -> Parts:
    return ldm.small()


@pytest.fixture(scope="module")
def single(parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ldm.save(tmp_path_factory.mktemp("sd") / "sd.safetensors", ldm.one_file(parts))


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    folder = tmp_path / "pipeline" / "tokenizer"
    folder.mkdir(parents=True)
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json", "notes.txt"):
        (folder / name).write_text(json.dumps({"name": name}))
    return folder


FILES = {
    "unet": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
    "text_encoder": "model.safetensors",
}


def test_a_whole_pipeline(tmp_path: Path, single: Path, parts: Parts, tokenizer: Path):
    out = tmp_path / "out"
    report = convert(single, out, single=SingleOptions(tokenizer=tokenizer.parent))
    assert [part.destination for part in report.parts] == [out / n / f for n, f in FILES.items()]
    assert str(report).count("\n") == 2
    copied = ("merges.txt", "tokenizer_config.json", "vocab.json")
    assert files(out) == {
        "model_index.json",
        "scheduler/scheduler_config.json",
        *(f"tokenizer/{name}" for name in copied),
        *(f"{name}/config.json" for name in FILES),
        *(f"{name}/{file}" for name, file in FILES.items()),
    }
    for name, state in parts.items():
        assert bits(load_file(out / name / FILES[name])) == bits(state)
        model, params = type(ldm.SMALL[name]).from_pretrained(out)
        assert model == ldm.SMALL[name]
        same = jax.tree.map(np.array_equal, params, to_flax(state))
        assert all(jax.tree.leaves(same))
    assert DDIMScheduler.from_pretrained(out).config.beta_end == 0.012
    assert json.loads((out / "model_index.json").read_text()) == {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": "0.35.0",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "safety_checker": NULL,
        "feature_extractor": NULL,
        "image_encoder": NULL,
        "requires_safety_checker": False,
    }


@pytest.mark.parametrize(
    ("channels", "name", "lacking"),
    [
        (4, "StableDiffusionPipeline", "vae, text_encoder, tokenizer:"),
        (9, "StableDiffusionInpaintPipeline", "vae, text_encoder, tokenizer:"),
        (8, "StableDiffusionInstructPix2PixPipeline", "vae, text_encoder, tokenizer:"),
        (
            5,
            "StableDiffusionDepth2ImgPipeline",
            "vae, text_encoder, tokenizer, depth_estimator, feature_extractor:",
        ),
    ],
)
def test_a_file_with_only_a_unet(
    tmp_path: Path, parts: Parts, channels: int, name: str, lacking: str
):
    unet = {**parts["unet"], "conv_in.weight": np.zeros((32, channels, 3, 3), np.float32)}
    path = ldm.save(tmp_path / "unet.safetensors", ldm.one_file({"unet": unet}))
    report = convert(path, tmp_path / "out")
    assert f"\nwithout {lacking} add a folder for each" in str(report)
    index = json.loads((tmp_path / "out" / "model_index.json").read_text())
    assert index["_class_name"] == name
    assert index["vae"] == index["text_encoder"] == index["tokenizer"] == NULL
    assert ("safety_checker" in index) == (channels != 5)
    assert index.get("depth_estimator", NULL) == NULL


def test_dtype_and_layout(tmp_path: Path, single: Path, parts: Parts):
    report = convert(single, tmp_path / "out", to="flax", dtype="bfloat16")
    for part, (name, state) in zip(report.parts, parts.items(), strict=True):
        assert part.destination.name == "diffusion_flax_model.safetensors"
        assert part.dtypes == {"bfloat16": len(state)}
        with open_weights(part.destination) as weights:
            assert weights.shapes == {n: one.shape for n, one in state.items()}
        type(ldm.SMALL[name]).from_pretrained(tmp_path / "out")
    back = convert(tmp_path / "out", tmp_path / "back", to="diffusers")
    assert {p.destination.parent.name: p.destination.name for p in back.parts} == FILES


@pytest.mark.parametrize("token", ["!", {"content": "!"}])
def test_a_tokenizer_of_another_version_is_noted(
    tmp_path: Path, single: Path, tokenizer: Path, token: Any
):
    """Version 1 pads with the end token, version 2 with "!"."""
    (tokenizer / "tokenizer_config.json").write_text(json.dumps({"pad_token": token}))
    report = convert(single, tmp_path / "out", single=SingleOptions(tokenizer=tokenizer))
    assert "pads with '!', and Stable Diffusion 1 with '<|endoftext|>'" in str(report)


def test_the_command(tmp_path: Path, parts: Parts, tokenizer: Path, capsys):
    """With the moving average of a training program's file."""
    state = ldm.one_file(parts)
    original = {name: one for name, one in state.items() if name.startswith(ldm.UNET)}
    path = ldm.save_ckpt(tmp_path / "sd.ckpt", {**state, **ldm.ema_ldm(original)})
    out = tmp_path / "out"
    options = ["--tokenizer", str(tokenizer), "--ema", "--prediction-type", "v_prediction"]
    assert main([str(path), str(out), *options]) == 0
    assert capsys.readouterr().out.count("\n") == 3
    found = load_file(out / "unet" / WEIGHTS)["conv_in.bias"]
    np.testing.assert_array_equal(found, -parts["unet"]["conv_in.bias"])
    scheduler = json.loads((out / "scheduler" / "scheduler_config.json").read_text())
    assert scheduler["prediction_type"] == "v_prediction"
    assert main([str(path), str(tmp_path / "text"), "--component", "text_encoder"]) == 0
    assert files(tmp_path / "text") == {"config.json", "model.safetensors"}
    assert set(load_file(tmp_path / "text" / "model.safetensors")) == set(parts["text_encoder"])


def test_what_is_refused(tmp_path: Path, single: Path, tokenizer: Path):
    def refused(message: str, src: Path = single, **options: Any) -> None:
        with pytest.raises(ValueError, match=message):
            convert(src, tmp_path / "out", **options)
        assert not (tmp_path / "out").exists()

    refused("is one checkpoint", variant="fp16")
    refused("has no component 'tower': it has unet, vae, text_encoder", component="tower")
    refused("needs tokenizer.json, or vocab.json", single=SingleOptions(tokenizer=tmp_path))
    refused("for a whole", component="vae", single=SingleOptions(tokenizer=tokenizer))
    other = component(tmp_path / "other")
    for src in (other, other / WEIGHTS):
        refused(r"moving average \(EMA\)", src, single=SingleOptions(ema=True))
        refused("tokenizer cannot be used", src, single=SingleOptions(tokenizer=tokenizer))
    scheduler = {"scheduler": {"prediction_type": "epsilon"}}
    refused("has no moving", single=SingleOptions(ema=True, overrides=scheduler))


def test_memory_is_two_tensors(tmp_path: Path, parts: Parts):
    table = np.zeros((400, 512), np.float32)
    text = {
        "embeddings.token_embedding.weight": table,
        "embeddings.position_embedding.weight": table,
        **{f"encoder.layers.{i}.mlp.fc1.weight": table for i in range(12)},
    }
    path = ldm.save(tmp_path / "sd.safetensors", ldm.one_file({"text_encoder": text}))
    peak = peak_memory(lambda: convert(path, tmp_path / "out"))
    assert peak <= 2 * table.nbytes + table.nbytes // 4
