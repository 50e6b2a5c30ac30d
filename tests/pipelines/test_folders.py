"""Pipelines loaded from folders and the hub."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from hub.server import HubServer, Repository
from pipelines.models import FILES, edit, pipeline, same_params

import ddpm_jax as dj
from ddpm_jax.pipelines.base import Component


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A pipeline's folder with a small model in it."""
    pipeline(dj.DDPMPipeline).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_bundled_pipeline():
    pipe = dj.DiffusionPipeline.from_pretrained("digits")
    assert type(pipe) is dj.DDPMPipeline
    assert pipe.scheduler == dj.DDPMScheduler()
    assert sum(leaf.size for leaf in jax.tree.leaves(pipe.params)) == 1_623_169
    ddim = dj.DDIMPipeline.from_pretrained("digits")
    assert ddim.scheduler == dj.DDIMScheduler()
    assert same_params(ddim.params, pipe.params)


def test_class_from_the_call_or_the_folder(folder: Path):
    assert type(dj.DiffusionPipeline.from_pretrained(folder)) is dj.DDPMPipeline
    assert type(dj.PNDMPipeline.from_pretrained(str(folder))) is dj.PNDMPipeline
    edit(folder / "model_index.json", _class_name="DDIMPipeline")
    pipe = dj.DiffusionPipeline.from_pretrained(folder)
    assert type(pipe) is dj.DDIMPipeline
    assert type(pipe.scheduler) is dj.DDIMScheduler


def test_flat_folder(folder: Path):
    for name in ("unet", "scheduler"):
        for file in (folder / name).iterdir():
            file.rename(folder / file.name)
        (folder / name).rmdir()
    expected = pipeline(dj.DDPMPipeline)
    pipe = dj.DDPMPipeline.from_pretrained(folder)
    assert (pipe.unet, pipe.scheduler) == (expected.unet, expected.scheduler)
    assert same_params(pipe.params, expected.params)


def test_scheduler_argument_replaces_the_folders(folder: Path):
    shutil.rmtree(folder / "scheduler")
    given = dj.EulerDiscreteScheduler(timestep_spacing="trailing")
    assert dj.DDPMPipeline.from_pretrained(folder, scheduler=given).scheduler is given
    ddim = dj.DDIMPipeline.from_pretrained(folder, scheduler=given)
    assert ddim.scheduler == dj.DDIMScheduler(timestep_spacing="trailing")


def test_dtypes(folder: Path):
    pipe = dj.DDPMPipeline.from_pretrained(folder, dtype=jnp.bfloat16, param_dtype=jnp.float16)
    assert pipe.unet.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(pipe.params)} == {jnp.dtype("float16")}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"_class_name": None}, "has no _class_name"),
        (
            {"vae": ["diffusers", "AutoencoderKL"], "safety_checker": [None, None]},
            r"components that this pipeline does not support: vae \(AutoencoderKL\)$",
        ),
        (
            {"scheduler": ["diffusers", "VQDiffusionScheduler"]},
            "names a VQDiffusionScheduler, which is not one of DDPMScheduler, .*: pass scheduler=",
        ),
        ({"scheduler": [None, None]}, "model_index.json has no scheduler: pass scheduler="),
    ],
)
def test_unsupported_folders(folder: Path, changes: dict[str, Any], words: str):
    edit(folder / "model_index.json", **changes)
    with pytest.raises(ValueError, match=words):
        dj.DiffusionPipeline.from_pretrained(folder)


def test_scheduler_of_an_unknown_class_is_read_as_the_pipelines_class(folder: Path):
    edit(folder / "model_index.json", scheduler=["diffusers", "UniPCMultistepScheduler"])
    assert type(dj.DDIMPipeline.from_pretrained(folder).scheduler) is dj.DDIMScheduler


@pytest.mark.usefixtures("as_users_run")
@pytest.mark.parametrize(
    ("file", "changes", "words"),
    [
        ("unet/config.json", {"norm_num_groups": 3}, "norm_num_groups"),
        ("scheduler/scheduler_config.json", {"beta_schedule": "wavy"}, "beta_schedule"),
    ],
)
def test_faulty_configs_name_their_file(
    folder: Path, file: str, changes: dict[str, Any], words: str
):
    edit(folder / file, **changes)
    for cls in (dj.DiffusionPipeline, dj.DDIMPipeline):
        with pytest.raises(ValueError, match=words) as caught:
            cls.from_pretrained(folder)
        assert str(caught.value).count(str(folder / file)) == 1


def test_wrong_dtype_does_not_blame_the_file(folder: Path):
    with pytest.raises(ValueError, match="dtype") as caught:
        dj.UNet2DModel.from_pretrained(folder, param_dtype=jnp.int32)
    assert "config.json" not in str(caught.value)


def test_json_that_is_nested_too_deeply(folder: Path):
    (folder / "model_index.json").write_text("[" * 200_000)
    with pytest.raises(ValueError, match=r"model_index.json cannot be read as JSON: it is nested"):
        dj.DDPMPipeline.from_pretrained(folder)


def test_missing_variant_lists_present_variants(folder: Path):
    (folder / FILES[-1]).rename(folder / "unet/diffusion_pytorch_model.fp16.safetensors")
    with pytest.raises(OSError, match=r"no weights.*; found variant fp16: pass variant='fp16'$"):
        dj.DDPMPipeline.from_pretrained(folder)
    dj.DDPMPipeline.from_pretrained(folder, variant="fp16")


@pytest.mark.usefixtures("as_users_run")
def test_params_need_a_sharding(folder: Path):
    with pytest.raises(ValueError, match=r"sharding must be a jax.sharding.Sharding.*'batch'"):
        dj.DDPMPipeline.from_pretrained(folder, sharding="batch")  # pyright: ignore


def test_from_the_hub(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    contents = {name: (folder / name).read_bytes() for name in FILES}
    extra = {"README.md": b"", "unet/diffusion_pytorch_model.bin": b"no weights"}
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with HubServer({"me/tiny": Repository(contents | extra)}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        pipe = dj.DiffusionPipeline.from_pretrained("me/tiny", cache_dir=tmp_path / "cache")
        assert server.downloaded == [f"me/tiny/{name}" for name in FILES]
    again = dj.DDIMPipeline.from_pretrained(
        "me/tiny", cache_dir=tmp_path / "cache", local_files_only=True
    )
    assert same_params(pipe.params, pipeline(dj.DDPMPipeline).params)
    assert same_params(again.params, pipe.params)


def test_a_component_without_the_variant_is_read_as_it_is(folder: Path, monkeypatch):
    """A pipeline of two networks, of which one has the variant."""
    vae = dj.AutoencoderKL(block_out_channels=(4,), norm_num_groups=2)
    coder = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 3.0), vae.shapes())
    vae.save_pretrained(folder / "vae", coder)
    pipe = pipeline(dj.DDPMPipeline)
    changed = jax.tree.map(lambda leaf: leaf + 1, pipe.params)
    pipe.unet.save_pretrained(folder / "unet", changed, variant="fp16")
    edit(folder / "model_index.json", vae=["diffusers", "AutoencoderKL"])
    kind = dj.DDPMPipeline
    coded = Component(dj.AutoencoderKL)
    coded.__set_name__(kind, "vae")
    monkeypatch.setattr(kind, "vae", coded, raising=False)
    monkeypatch.setattr(kind, "_assembled", lambda params, parts: SimpleNamespace(params=params))
    found: Any = kind.from_pretrained(folder, variant="fp16")
    assert same_params(found.params["unet"], changed)
    assert same_params(found.params["vae"], coder)
    with pytest.raises(FileNotFoundError, match="no weights of variant 'ema'"):
        kind.from_pretrained(folder, variant="ema")
