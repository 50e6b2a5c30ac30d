"""A pipeline of several networks: each of them is converted."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch_files
from safetensors.numpy import load_file, save_file
from weights.folders import INDEX, WEIGHTS, bits, files, numbered, pipeline

from weights_convert import convert, find_weights
from weights_convert.__main__ import main
from weights_convert.convert import Kind
from weights_convert.files import DIFFUSERS, TRANSFORMERS

NULL = [None, None]
TEXT = {
    "text_model.embeddings.token_embedding.weight": numbered(5, 4),
    "text_model.encoder.layers.0.mlp.fc1.weight": numbered(6, 4),
    "text_model.final_layer_norm.bias": numbered(4),
}
VAE = {"decoder.conv_in.weight": numbered(4, 2, 3, 3), "encoder.conv_norm_out.bias": numbered(3)}
CHECKER = {
    "concept_embeds": numbered(3, 4),
    "vision_model.vision_model.embeddings.class_embedding": numbered(4),
}
CONFIGS = {
    "vae": {"_class_name": "AutoencoderKL"},
    "text_encoder": {"architectures": ["CLIPTextModel"], "model_type": "clip_text_model"},
    "safety_checker": {"architectures": ["StableDiffusionSafetyChecker"], "model_type": "clip"},
}


def stable_diffusion(folder: Path) -> Path:
    """A pipeline of four networks, two of them of transformers, and of two other folders."""
    parts = {
        "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "feature_extractor": ["transformers", "CLIPImageProcessor"],
        "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
        "image_encoder": NULL,
    }
    pipeline(folder, **{**INDEX, **parts, "requires_safety_checker": False})
    for name, config in CONFIGS.items():
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(json.dumps(config))
    save_file(VAE, folder / "vae" / WEIGHTS)
    save_file(TEXT, folder / "text_encoder" / "model.safetensors")
    save_file(CHECKER, folder / "safety_checker" / "model.safetensors")
    for name in ("tokenizer", "feature_extractor"):
        (folder / name).mkdir()
        (folder / name / "config.json").write_text("{}")
    (folder / "tokenizer" / "sub").mkdir()
    (folder / "tokenizer" / "sub" / "any").write_bytes(b"any")
    return folder


@pytest.mark.parametrize("kind", ["flax", "orbax", "diffusers"])
def test_every_network_there_and_back(tmp_path: Path, kind: Kind, capfd):
    source = stable_diffusion(tmp_path / "src")
    report = convert(source, tmp_path / "there", to=kind)
    names = [part.destination.parent.name for part in report.parts]
    assert names == ["unet", "vae", "text_encoder", "safety_checker"]
    assert str(report).count("\n") == 3
    stems = (DIFFUSERS, DIFFUSERS, TRANSFORMERS, TRANSFORMERS)
    for part, stem in zip(report.parts, stems, strict=True):
        assert part.destination == find_weights(part.destination.parent, stem=stem)
    convert(tmp_path / "there", tmp_path / "back", to="diffusers")
    assert capfd.readouterr() == ("", "")  # orbax prints nothing of its own
    assert files(tmp_path / "back") == files(source)
    for name in files(source):
        given, written = source / name, tmp_path / "back" / name
        if name.endswith(".safetensors"):
            assert bits(load_file(written)) == bits(load_file(given))
        elif name == "model_index.json":
            assert json.loads(written.read_text()) == json.loads(given.read_text())
        else:
            assert written.read_bytes() == given.read_bytes()


def test_transformers_older_files(tmp_path: Path):
    source = stable_diffusion(tmp_path / "src")
    (source / "text_encoder" / "model.safetensors").unlink()
    torch_files.save(source / "text_encoder" / "pytorch_model.bin", TEXT)
    convert(source, tmp_path / "out", to="diffusers")
    written = load_file(tmp_path / "out" / "text_encoder" / "model.safetensors")
    assert bits(written) == bits(TEXT)


def test_a_component_without_the_variant_is_read_as_it_is(tmp_path: Path):
    source = stable_diffusion(tmp_path / "src")
    half = {name: one.astype(np.float16) for name, one in TEXT.items()}
    save_file(half, source / "text_encoder" / "model.fp16.safetensors")
    report = convert(source, tmp_path / "out", variant="fp16")
    dtypes = {part.destination.parent.name: set(part.dtypes) for part in report.parts}
    others = {key: {"float32"} for key in ("unet", "vae", "safety_checker")}
    assert dtypes == {**others, "text_encoder": {"float16"}}
    for variant in ("ema", None):
        (source / "text_encoder" / "model.safetensors").unlink(missing_ok=True)
        with pytest.raises(FileNotFoundError, match="no weights"):
            convert(source, tmp_path / "other", variant=variant)
    with pytest.raises(FileNotFoundError, match="no weights of variant 'fp16'"):
        convert(source / "vae", tmp_path / "other", variant="fp16")


def test_one_component(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    source = stable_diffusion(tmp_path / "src")
    argv = [str(source), str(tmp_path / "a"), "--component", "text_encoder", "--to", "diffusers"]
    assert main(argv) == 0
    convert(source / "text_encoder", tmp_path / "b", to="diffusers")
    for name in ("a", "b"):
        assert files(tmp_path / name) == {"config.json", "model.safetensors"}
    for name in ("image_encoder", "..", "unet/x"):
        with pytest.raises(ValueError, match="has no component"):
            convert(source, tmp_path / "out", component=name)


def test_a_network_that_cannot_be_converted_is_named_before_anything_is_written(tmp_path: Path):
    source = stable_diffusion(tmp_path / "src")
    file = source / "vae" / WEIGHTS
    save_file({"a.weight_g": numbered(2)}, file)
    with pytest.raises(ValueError, match=r"vae/.*no rule for a\.weight_g") as caught:
        convert(source, tmp_path / "out")
    assert str(file) in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_check_of_the_caller(tmp_path: Path):
    seen = {}

    def check(weights: Path, config: object, checkpoint: object) -> None:
        seen[weights.parent.name] = (config, set(checkpoint))  # type: ignore[call-overload]
        if weights.parent.name == "text_encoder":
            raise ValueError("not this one")

    source = stable_diffusion(tmp_path / "src")
    with pytest.raises(ValueError, match="not this one"):
        convert(source, tmp_path / "out", check=check)
    assert not (tmp_path / "out").exists()
    assert seen["vae"] == (CONFIGS["vae"], set(VAE))
    assert seen["text_encoder"] == (CONFIGS["text_encoder"], set(TEXT))
