"""Round trips with live diffusers: it loads what we write, and we load what it saves."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch: Any = pytest.importorskip("torch")
diffusers: Any = pytest.importorskip("diffusers")

from weights_convert import (  # noqa: E402
    convert,
    find_weights,
    open_weights,
    save_torch,
    to_flax,
    to_torch,
    weight_files,
)
from weights_convert.convert import Kind  # noqa: E402

# Every field that adds a kind of tensor, on networks of some 10,000 parameters.
BASE: dict[str, Any] = {
    "sample_size": 8,
    "block_out_channels": (4, 8),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": 4,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
}
CONFIGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "fourier": {"time_embedding_type": "fourier", "class_embed_type": "timestep"},
    "learned": {"time_embedding_type": "learned", "num_train_timesteps": 12},
    "classes": {"num_class_embeds": 5, "resnet_time_scale_shift": "scale_shift"},
    "resnet": {
        "downsample_type": "resnet",
        "upsample_type": "resnet",
        "down_block_types": ("AttnDownBlock2D", "ResnetDownsampleBlock2D"),
        "up_block_types": ("ResnetUpsampleBlock2D", "AttnUpBlock2D"),
    },
    "no attention": {"add_attention": False, "mid_block_type": None},
}


def network(name: str = "plain") -> Any:
    torch.manual_seed(0)
    return diffusers.UNet2DModel(**{**BASE, **CONFIGS[name]})


def arrays(model: Any) -> dict[str, np.ndarray[Any, Any]]:
    return {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}


def equal(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes()


def read(folder: Path, variant: str | None = None) -> dict[str, np.ndarray[Any, Any]]:
    with open_weights(find_weights(folder, variant)) as checkpoint:
        return to_torch(to_flax(checkpoint))


def loaded(folder: Path, **options: Any) -> Any:
    """diffusers' own model of a folder; anything that it has to initialise itself is a failure."""
    model, info = diffusers.UNet2DModel.from_pretrained(
        folder, output_loading_info=True, low_cpu_mem_usage=False, **options
    )
    for fault in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        assert not info.get(fault), fault
    return model


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "bin"])
def test_we_load_what_diffusers_saves_and_it_loads_what_we_write(
    tmp_path: Path, name: str, safe: bool
) -> None:
    model = network(name)
    model.save_pretrained(tmp_path / "given", safe_serialization=safe)
    equal(read(tmp_path / "given"), arrays(model))
    convert(tmp_path / "given", tmp_path / "ours", to="diffusers")
    equal(arrays(loaded(tmp_path / "ours")), arrays(model))


@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "bin"])
@pytest.mark.parametrize("variant", [None, "fp16"])
def test_shards_and_variants(tmp_path: Path, safe: bool, variant: str | None) -> None:
    model = network().half() if variant else network()
    model.save_pretrained(tmp_path, safe_serialization=safe, variant=variant, max_shard_size="10KB")
    names = {path.name for path in tmp_path.iterdir()}
    assert len(names) > 3  # config, index and more than one shard
    assert set(weight_files(sorted(names), variant)) == names - {"config.json"}
    equal(read(tmp_path, variant), arrays(model))


def test_a_single_file_variant(tmp_path: Path) -> None:
    model = network().half()
    model.save_pretrained(tmp_path, variant="fp16")
    assert weight_files([p.name for p in tmp_path.iterdir()], "fp16") == [
        "diffusion_pytorch_model.fp16.safetensors"
    ]
    equal(read(tmp_path, "fp16"), arrays(model))


def test_the_variant_that_we_write(tmp_path: Path) -> None:
    model = network().half()
    network().save_config(tmp_path)
    save_torch(tmp_path, to_flax(arrays(model)), variant="fp16")
    again = loaded(tmp_path, variant="fp16", torch_dtype=torch.float16)
    equal(arrays(again), arrays(model))


def test_bfloat16(tmp_path: Path) -> None:
    network().bfloat16().save_pretrained(tmp_path / "given")
    (report,) = convert(tmp_path / "given", tmp_path / "ours", to="diffusers").parts
    assert set(report.dtypes) == {"bfloat16"}
    ours = loaded(tmp_path / "ours", torch_dtype=torch.bfloat16).state_dict()
    for name, tensor in network().bfloat16().state_dict().items():
        assert torch.equal(ours[name], tensor)


OLD = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def old_name(name: str) -> str:
    for new, old in OLD.items():
        name = name.replace(f".{new}.", f".{old}.")
    return name


@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "bin"])
def test_old_attention_names_as_diffusers_reads_them(tmp_path: Path, safe: bool) -> None:
    model = network()
    model.save_config(tmp_path)
    state = {old_name(name): tensor for name, tensor in model.state_dict().items()}
    assert sum(name not in state for name in model.state_dict()) == 8 * 4  # 4 attentions
    if safe:
        from safetensors.torch import save_file

        save_file(state, tmp_path / "diffusion_pytorch_model.safetensors")
    else:
        torch.save(state, tmp_path / "diffusion_pytorch_model.bin")
    theirs = diffusers.UNet2DModel.from_pretrained(tmp_path)  # it converts such files by itself
    equal(read(tmp_path), arrays(theirs))
    equal(read(tmp_path), arrays(model))


@pytest.mark.parametrize(
    ("kind", "method", "layout"),
    [
        ("flax", "DDPM", "nested"),
        ("flax", "PNDM", "flat"),
        ("orbax", "DDIM", "flat"),
        ("orbax", "PNDM", "without index"),
        ("diffusers", "DDPM", "flat"),
        ("diffusers", "DDIM", "without index"),
    ],
)
def test_pipelines(tmp_path: Path, kind: Kind, method: str, layout: str) -> None:
    given, model = tmp_path / "given", network()
    pipeline = getattr(diffusers, f"{method}Pipeline")
    scheduler = getattr(diffusers, f"{method}Scheduler")(num_train_timesteps=50)
    pipeline(unet=model, scheduler=scheduler).save_pretrained(given)
    if layout == "flat":
        for path in [*(given / "unet").iterdir(), *(given / "scheduler").iterdir()]:
            path.rename(given / path.name)
        (given / "unet").rmdir()
        (given / "scheduler").rmdir()
    if layout == "without index":
        (given / "model_index.json").unlink()
    convert(given, tmp_path / "there", to=kind)
    convert(tmp_path / "there", tmp_path / "back", to="diffusers")
    again = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "back")
    assert type(again).__name__ == f"{method}Pipeline"
    assert type(again.scheduler) is type(scheduler)
    assert again.scheduler.config.num_train_timesteps == 50
    equal(arrays(again.unet), arrays(model))


def test_our_index_is_as_theirs(tmp_path: Path) -> None:
    pipeline = diffusers.DDIMPipeline(unet=network(), scheduler=diffusers.DDIMScheduler())
    pipeline.save_pretrained(tmp_path / "given")
    convert(tmp_path / "given", tmp_path / "ours", to="diffusers")
    given, ours = (
        json.loads((tmp_path / name / "model_index.json").read_text()) for name in ("given", "ours")
    )
    assert ours == given
