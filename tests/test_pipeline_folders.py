"""Pipelines loaded from folders and the hub, saved as folders, and spread over devices."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hub_server import HubServer, Repository
from pipeline_models import pipeline

import ddpm_jax as dj
from ddpm_jax import hub

DIGITS = hub.BUNDLED / "digits"
FILES = [
    "model_index.json",
    "scheduler/scheduler_config.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
]


def files(folder: Path) -> list[str]:
    return sorted(f.relative_to(folder).as_posix() for f in folder.rglob("*") if f.is_file())


def same_params(a: Any, b: Any) -> bool:
    return jax.tree.all(jax.tree.map(np.array_equal, a, b))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A pipeline's folder with a small model in it."""
    pipeline(dj.DDPMPipeline).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# Loading.


def test_bundled_pipeline():
    pipe = dj.DiffusionPipeline.from_pretrained("digits")
    assert type(pipe) is dj.DDPMPipeline
    assert pipe.scheduler == dj.DDPMScheduler()
    assert sum(leaf.size for leaf in jax.tree.leaves(pipe.params)) == 1_623_169
    ddim = dj.DDIMPipeline.from_pretrained("digits")
    assert ddim.scheduler == dj.DDIMScheduler()
    assert same_params(ddim.params, pipe.params)


def test_class_that_is_called_decides(folder: Path):
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


def test_given_scheduler_replaces_the_folder_s(folder: Path):
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
        (
            {"_class_name": "LDMPipeline"},
            "is a LDMPipeline; accepted pipelines are DDIMPipeline, DDPMPipeline, PNDMPipeline",
        ),
        ({"_class_name": None}, "it has no _class_name"),
        ({"unet": ["diffusers", "UNet2DConditionModel"]}, "its unet is a UNet2DConditionModel"),
        (
            {"vae": ["diffusers", "AutoencoderKL"], "safety_checker": [None, None]},
            r"components that these pipelines lack: vae \(AutoencoderKL\)$",
        ),
        (
            {"scheduler": ["diffusers", "LCMScheduler"]},
            "asks for a LCMScheduler, which is not among DDPMScheduler, .*: pass scheduler=",
        ),
        ({"scheduler": [None, None]}, "model_index.json has no scheduler: pass scheduler="),
    ],
)
def test_folders_of_another_kind(folder: Path, changes: dict[str, Any], words: str):
    edit(folder / "model_index.json", **changes)
    with pytest.raises(ValueError, match=words):
        dj.DiffusionPipeline.from_pretrained(folder)


def test_scheduler_of_an_unknown_class_is_read_as_the_pipeline_s_own(folder: Path):
    edit(folder / "model_index.json", scheduler=["diffusers", "LCMScheduler"])
    assert type(dj.DDIMPipeline.from_pretrained(folder).scheduler) is dj.DDIMScheduler


def test_missing_weights(folder: Path):
    (folder / FILES[-1]).unlink()
    with pytest.raises(OSError, match="no weights in"):
        dj.DDPMPipeline.from_pretrained(folder)


@pytest.mark.usefixtures("as_users_run")
@pytest.mark.parametrize(
    ("file", "changes", "words"),
    [
        ("unet/config.json", {"norm_num_groups": 3}, "norm_num_groups"),
        ("unet/config.json", {"mystery": 1}, "mystery"),
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


def test_wrong_dtype_is_not_the_file_s_fault(folder: Path):
    with pytest.raises(ValueError, match="dtype") as caught:
        dj.UNet2DModel.from_pretrained(folder, param_dtype=jnp.int32)
    assert "config.json" not in str(caught.value)


def test_json_that_is_nested_too_deeply(folder: Path):
    (folder / "model_index.json").write_text("[" * 200_000)
    with pytest.raises(ValueError, match=r"model_index.json cannot be read as JSON: it is nested"):
        dj.DDPMPipeline.from_pretrained(folder)


def test_missing_variant_says_which_are_there(folder: Path):
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


# Saving.


def test_saved_folder_is_read_back(tmp_path: Path):
    model = pipeline(dj.DDIMPipeline)
    model.scheduler = dj.PNDMScheduler(skip_prk_steps=True)
    model.save_pretrained(tmp_path / "new" / "model")
    saved = tmp_path / "new" / "model"
    assert files(saved) == FILES
    assert [entry.name for entry in saved.parent.iterdir()] == ["model"]  # nothing left beside it
    index = json.loads((saved / "model_index.json").read_text())
    assert index["scheduler"] == ["diffusers", "PNDMScheduler"]
    pipe = dj.DiffusionPipeline.from_pretrained(saved, scheduler=model.scheduler)
    assert type(pipe) is dj.DDIMPipeline
    assert pipe.unet == model.unet
    assert same_params(pipe.params, model.params)
    ddpm = dj.DDPMPipeline.from_pretrained(saved)
    assert ddpm.scheduler == model.scheduler


def test_bundled_model_saved_is_the_bundled_model(tmp_path: Path):
    from weights_convert import find_weights, open_weights

    dj.DDPMPipeline.from_pretrained("digits").save_pretrained(tmp_path / "digits")
    assert files(tmp_path / "digits") == files(DIGITS)
    with (
        open_weights(find_weights(tmp_path / "digits" / "unet")) as ours,
        open_weights(find_weights(DIGITS / "unet")) as theirs,
    ):
        assert set(ours) == set(theirs)
        assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


def test_saving_again_replaces_files_and_leaves_others(folder: Path):
    (folder / "README.md").write_text("mine")
    pipe = pipeline(dj.DDPMPipeline, freq_shift=1)
    pipe.save_pretrained(folder)
    pipe.save_pretrained(folder, variant="ema")
    variant = "unet/diffusion_pytorch_model.ema.safetensors"
    assert files(folder) == sorted([*FILES, "README.md", variant])
    assert dj.DDPMPipeline.from_pretrained(folder).unet.freq_shift == 1
    assert dj.DDPMPipeline.from_pretrained(folder, variant="ema").unet == pipe.unet


def test_a_variant_that_leaves_the_folder_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match=r"variant must be a name .*; got '\.\./x'"):
        pipeline(dj.DDPMPipeline).save_pretrained(tmp_path / "new" / "pipe", variant="../x")
    assert not files(tmp_path)


def test_index_is_the_last_file_to_be_replaced(folder: Path, monkeypatch: pytest.MonkeyPatch):
    replaced: list[Path] = []
    replace = os.replace

    def note(source: Path, target: Path) -> None:
        replaced.append(Path(target))
        replace(source, target)

    monkeypatch.setattr(os, "replace", note)
    pipeline(dj.DDPMPipeline).save_pretrained(folder)
    inside = [path for path in replaced if path.is_relative_to(folder)]
    assert inside[-1] == folder / "model_index.json"
    assert sorted(path.relative_to(folder).as_posix() for path in inside) == FILES


def test_failed_save_leaves_nothing(tmp_path: Path):
    pipe = dj.DDPMPipeline.from_pipe(pipeline(dj.DDPMPipeline), params={"conv_in": {}})
    with pytest.raises(ValueError, match="conv_in"):
        pipe.save_pretrained(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_where_nothing_can_be_saved(folder: Path, tmp_path: Path):
    pipe = pipeline(dj.DDPMPipeline)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="file is a file; a pipeline is saved as a folder"):
        pipe.save_pretrained(tmp_path / "file")
    index = folder / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text("{}")
    with pytest.raises(ValueError, match=r"index.json would be read in place of what is saved"):
        pipe.save_pretrained(folder)


# Several devices.


def test_sharded_batch():
    """Eight host devices: the same noise and, to rounding, the same images; any batch size."""
    program = """
import jax, numpy as np, ddpm_jax as dj
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from pipeline_models import pipeline

mesh = jax.make_mesh((4, 2), ("batch", "other"), axis_types=(AxisType.Auto,) * 2)
pipe = pipeline(dj.DDIMPipeline, num_class_embeds=4)
labels = np.arange(10) % 4
call = dict(num_inference_steps=6, eta=1.0, output_type="jax", progress=False)
alone = pipe(jax.random.key(0), batch_size=10, class_labels=labels, **call).images
for spec in (P(("batch", "other")), P("batch", None, None, None)):
    split = NamedSharding(mesh, spec)
    images = pipe(
        jax.random.key(0), batch_size=10, class_labels=labels, sharding=split, **call
    ).images
    assert images.shape == (10, 8, 8, 1)
    np.testing.assert_allclose(images, alone, atol=1e-5)

# The program does run on all devices, and params that lie there are not copied.
from ddpm_jax.request import make_batch
params = jax.device_put(pipe.params, NamedSharding(mesh, P()))
table = pipe.scheduler.table(6, eta=1.0)
split = NamedSharding(mesh, P(("batch", "other")))
batch = make_batch(pipe.unet, params, table, jax.random.key(0), 10, labels, None, split)
assert batch.x_T.shape == (16, 8, 8, 1) and batch.count == 10
assert len(batch.x_T.sharding.device_set) == 8
assert batch.x_T.addressable_shards[0].data.shape[0] == 2
assert batch.params["unet"]["conv_in"]["kernel"] is params["conv_in"]["kernel"]
noise = dj.noise(batch.keys, 3, (8, 8, 1))[:10]
np.testing.assert_array_equal(noise, dj.noise(dj.sample_keys(jax.random.key(0), 10), 3, (8, 8, 1)))

for wrong in (P(), P(None, "batch"), P("batch", "other")):
    try:
        pipe(jax.random.key(0), sharding=NamedSharding(mesh, wrong), **call)
    except ValueError as error:
        assert "must split the batch axis" in str(error)
    else:
        raise AssertionError(wrong)
print("checked")
"""
    tests = Path(__file__).parent
    env = {
        **os.environ,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": f"{tests.parent}:{tests}",
    }
    run = subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, text=True, check=False
    )
    assert run.stdout.strip() == "checked", run.stderr
