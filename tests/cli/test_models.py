"""`ddpm-jax describe`, `info` and `convert`."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest
from cli.sampling import complaint, save_tiny
from hub.server import HubServer, Repository
from PIL import Image
from pipelines.models import edit, pipeline
from weights import ldm_files

from ddpm_jax import (
    DDIMPipeline,
    DDIMScheduler,
    PNDMScheduler,
    Scheduler,
    TCDScheduler,
)
from ddpm_jax.cli import info, main
from ddpm_jax.hub import hub
from ddpm_jax.tables.describe import describe
from weights_convert import find_weights, open_weights


def read(unet: Path) -> dict[str, np.ndarray]:
    with open_weights(find_weights(unet)) as weights:
        return dict(weights)


def names_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_describe_prints_the_table(capsys: pytest.CaptureFixture[str]):
    argv = "describe --steps 7 --eta 0.5 --set timestep_spacing=trailing clip_sample=False"
    assert main(argv.split()) == 0
    scheduler = DDIMScheduler(timestep_spacing="trailing", clip_sample=False)
    expected = describe(scheduler.table(7, eta=0.5))
    assert capsys.readouterr().out == expected + "\n"


@pytest.mark.parametrize(
    ("scheduler", "options", "call"),
    [
        (PNDMScheduler(), "--scheduler pndm --eta 0", {}),
        (TCDScheduler(), "--scheduler tcd --eta 0", {"eta": 0.0}),
        (TCDScheduler(), "--scheduler tcd", {"eta": 0.3}),
    ],
)
def test_describe_with_an_eta_of_zero(
    scheduler: Scheduler, options: str, call: dict[str, float], capsys: pytest.CaptureFixture[str]
):
    """It is a choice where there is the option, and asks for nothing elsewhere."""
    assert main(["describe", "--steps", "4", *options.split()]) == 0
    assert capsys.readouterr().out == describe(scheduler.table(4, **call)) + "\n"


def test_describe_takes_the_models_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    DDIMScheduler(timestep_spacing="trailing").save_pretrained(tmp_path)
    assert main(["describe", "--steps", "4", "--model", str(tmp_path)]) == 0
    timesteps = re.findall(r"^ *\d+  t (\d+)", capsys.readouterr().out, re.MULTILINE)
    assert timesteps == ["999", "749", "499", "249"]


def test_info_of_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    pipeline(DDIMPipeline, num_class_embeds=3).save_pretrained(tmp_path)
    params = sum(array.size for array in read(tmp_path / "unet").values())
    assert main(["info", str(tmp_path), "--memory", "--batch-size", "2"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^num_class_embeds +3$", printed, re.MULTILINE)
    assert re.search(r"^conv_in +2 +80$", printed, re.MULTILINE)
    assert re.search(rf"^total +\d+ +{params:,}$", printed, re.MULTILINE)
    assert f"{4 * params / 1000:.4g} kB in float32" in printed
    assert re.search(r"2 images in float32: [\d.]+ kB more", printed)


@pytest.mark.filterwarnings("default")
def test_info_of_a_moving_average(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    pipe = pipeline(DDIMPipeline)
    folder = tmp_path / "unet_ema"
    pipe.unet.save_pretrained(folder, pipe.params)
    edit(folder / "config.json", decay=0.99, optimization_step=7)
    assert main(["info", str(folder)]) == 0
    shown = capsys.readouterr()
    assert "moving average of weights in training (EMA)" in shown.out
    assert "no field decay, optimization_step: ignored" in shown.err
    assert main(["convert", str(folder), str(tmp_path / "out")]) == 0


def test_info_of_networks_that_no_pipeline_here_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """The network is shown whatever its pipeline is, and without any; so it is on the hub, where a
    given scheduler samples it.
    """
    folder = save_tiny(tmp_path / "model")
    edit(folder / "model_index.json", _class_name="LDMPipeline")
    assert main(["info", str(folder)]) == 0
    assert "UNet2DModel" in capsys.readouterr().out
    files = {file.name: file.read_bytes() for file in (folder / "unet").iterdir()}
    with HubServer({"me/alone": Repository(files)}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
        assert main(["info", "me/alone"]) == 0
        given = f"--model me/alone --scheduler-config {folder / 'scheduler'} --steps 2 --num 1"
        assert main(f"sample --no-cache {given} --out {tmp_path / 'a.png'}".split()) == 0
    assert (tmp_path / "a.png").is_file()


def test_info_lists_the_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    pipe = pipeline(DDIMPipeline)
    pipe.save_pretrained(tmp_path)
    unet, count = tmp_path / "unet", len(jax.tree.leaves(pipe.params))
    file = find_weights(unet)
    assert info.stored(unet, None) == f"stored: {count} tensors of float32 in {file}"
    assert main(["info", str(tmp_path), "--variant", "fp16"]) == 0
    printed = capsys.readouterr().out
    assert f"stored: no weights of variant 'fp16' in {unet}\n" in printed
    file.rename(unet / "diffusion_pytorch_model.fp16.safetensors")
    assert info.stored(unet, "fp16").endswith(".fp16.safetensors")
    assert info.stored(unet, None).endswith(
        f"no weights in {unet}; found variant fp16: pass variant='fp16'"
    )


def test_info_of_another_programs_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    image = tmp_path / "holiday.png"
    Image.new("L", (2, 2)).save(image)
    assert "ddpm-jax sample did not write it" in complaint(f"info {image}", capsys, 1)


@pytest.mark.parametrize("to", ["flax", "orbax", "diffusers"])
def test_convert(to: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "out"
    argv = ["convert", "digits", str(out), "--to", to]
    assert main(argv) == 0
    printed = capsys.readouterr().out
    assert "268 tensors, 1,623,169 params, float16, 3,246,338 bytes" in printed
    before, after = read(hub.BUNDLED / "digits" / "unet"), read(out / "unet")
    assert set(before) == set(after)
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert "pass --overwrite to replace it" in complaint(" ".join(argv), capsys, 1)
    assert main([*argv, "--overwrite"]) == 0


@pytest.mark.parametrize("to", ["flax", "diffusers"])
def test_convert_refuses_weights_of_another_config(
    to: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Every fault is listed, and nothing is written."""
    source, out = tmp_path / "source", tmp_path / "out"
    pipeline(DDIMPipeline).save_pretrained(source)
    file = source / "unet" / "config.json"
    edit(file, num_class_embeds=3, in_channels=2)
    error = complaint(f"convert {source} {out} --to {to}", capsys, 1)
    assert "missing: class_embedding.weight" in error
    assert "wrong shape: conv_in.weight is (8, 1, 3, 3), expected (8, 2, 3, 3)" in error
    assert names_in(tmp_path) == ["source"]
    edit(file, _class_name="AnotherModel")  # which is not checked
    assert main(["convert", str(source), str(out), "--to", to]) == 0


def test_convert_a_stable_diffusion_in_one_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    state = ldm_files.one_file(ldm_files.small())
    path = ldm_files.save(tmp_path / "sd.safetensors", state)
    argv = ["convert", str(path), str(tmp_path / "out")]
    assert main([*argv, "--dtype", "float16"]) == 0
    lines = capsys.readouterr().out.splitlines()
    files = (
        "unet/diffusion_pytorch_model.safetensors:",
        "vae/diffusion_pytorch_model.safetensors:",
        "text_encoder/model.safetensors:",
    )
    assert [line.split()[2] for line in lines[:3]] == [f"{tmp_path}/out/{name}" for name in files]
    said = "without tokenizer: add a folder for each, and name it in model_index.json"
    assert lines[3:] == [said]
    part = f"convert {tmp_path / 'out'} {tmp_path / 'flax'} --component text_encoder"
    assert main(part.split()) == 0
    assert names_in(tmp_path / "flax") == ["config.json", "diffusion_flax_model.safetensors"]
    capsys.readouterr()
    bias = "cond_stage_model.transformer.text_model.encoder.layers.1.mlp.fc1.bias"
    ldm_files.save(path, {name: one for name, one in state.items() if name != bias})
    error = complaint(" ".join([*argv, "--overwrite"]), capsys, 1)
    assert "missing: text_model.encoder.layers.1.mlp.fc1.bias" in error
