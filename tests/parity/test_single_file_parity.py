"""Single files against diffusers' own converters: every key and value."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from weights import ldm_files as ldm

torch: Any = pytest.importorskip("torch")
diffusers: Any = pytest.importorskip("diffusers")
transformers: Any = pytest.importorskip("transformers")

from diffusers.loaders import single_file_utils as theirs  # noqa: E402

from weights_convert import convert, open_single_file  # noqa: E402
from weights_convert import ldm as names  # noqa: E402
from weights_convert.tensors import Stored  # noqa: E402

UNETS: list[dict[str, Any]] = [
    {
        "block_out_channels": (8, 16),
        "layers_per_block": layers,
        "down_block_types": down,
        "up_block_types": up,
        "cross_attention_dim": 12,
        "norm_num_groups": 4,
        "attention_head_dim": 2,
        "use_linear_projection": linear,
    }
    for layers, down, up, linear in [
        (1, ("CrossAttnDownBlock2D", "DownBlock2D"), ("UpBlock2D", "CrossAttnUpBlock2D"), False),
        (2, ("DownBlock2D", "CrossAttnDownBlock2D"), ("CrossAttnUpBlock2D", "UpBlock2D"), True),
    ]
]
VAES: list[dict[str, Any]] = [
    {
        "block_out_channels": widths,
        "layers_per_block": layers,
        "down_block_types": ("DownEncoderBlock2D",) * len(widths),
        "up_block_types": ("UpDecoderBlock2D",) * len(widths),
        "norm_num_groups": 4,
    }
    for widths, layers in [((4, 8), 1), ((4, 4, 8, 8), 2)]
]


def arrays(model: Any) -> ldm.Arrays:
    return {name: one.detach().numpy() for name, one in model.state_dict().items()}


def tensors(state: ldm.Arrays) -> dict[str, Any]:
    return {name: torch.from_numpy(np.array(one)) for name, one in state.items()}


def equal(found: Any, wanted: dict[str, Any]) -> None:
    assert set(found) == set(wanted)
    for name, one in wanted.items():
        np.testing.assert_array_equal(found[name], one.numpy(), err_msg=name)


@pytest.mark.parametrize("config", UNETS)
@pytest.mark.parametrize("ema", [False, True])
def test_unet(tmp_path: Path, config: dict[str, Any], ema: bool):
    model = diffusers.UNet2DConditionModel(**config)
    original = ldm.unet_ldm(arrays(model))
    state = {**original, **ldm.ema_ldm(original)}
    wanted = theirs.convert_ldm_unet_checkpoint(tensors(state), model.config, extract_ema=ema)
    path = ldm.save(tmp_path / "sd.safetensors", state)
    overrides = {"scheduler": {"prediction_type": "epsilon"}}  # else a warning of version 2
    with open_single_file(path, ema=ema, overrides=overrides) as file:
        equal(file.components["unet"], wanted)
    assert set(wanted) == set(arrays(model))


@pytest.mark.parametrize("config", VAES)
def test_vae(tmp_path: Path, config: dict[str, Any]):
    model = diffusers.AutoencoderKL(**config)
    state = ldm.vae_ldm(arrays(model))
    wanted = theirs.convert_ldm_vae_checkpoint(tensors(state), model.config)
    with open_single_file(ldm.save(tmp_path / "sd.safetensors", state)) as file:
        equal(file.components["vae"], wanted)
    assert set(wanted) == set(arrays(model))


FULL = {
    "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": (*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
    "up_block_types": ("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
}
FULL_VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
}


@pytest.mark.parametrize(
    ("kind", "config", "turn", "prefix", "count"),
    [
        ("UNet2DConditionModel", FULL, "unet", ldm.UNET, 686),
        ("UNet2DConditionModel", FULL | {"use_linear_projection": True}, "unet", ldm.UNET, 686),
        ("AutoencoderKL", FULL_VAE, "vae", ldm.VAE, 248),
    ],
)
def test_the_names_at_full_size(kind: str, config: Any, turn: str, prefix: str, count: int):
    with torch.device("meta"):
        state = getattr(diffusers, kind)(**config).state_dict()
    shapes = {name: tuple(one.shape) for name, one in state.items()}
    blank = {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}

    def read() -> Any:
        raise AssertionError("only shapes are needed")

    original = {
        name.removeprefix(prefix): Stored(one.shape, one.dtype, read)
        for name, one in getattr(ldm, f"{turn}_ldm")(blank).items()
    }
    assert len(original) == count
    assert {n: one.shape for n, one in getattr(names, turn)(original).items()} == shapes


def text_encoder(layers: int) -> Any:
    return transformers.CLIPTextModel(
        transformers.CLIPTextConfig(
            vocab_size=20,
            hidden_size=4,
            intermediate_size=6,
            num_hidden_layers=layers,
            num_attention_heads=2,
            max_position_embeddings=7,
        )
    )


def test_open_clip(tmp_path: Path):
    """diffusers leaves out layer 23 by its number, so the network has 24."""
    model = text_encoder(23)
    state = ldm.open_clip_ldm(arrays(model))
    del state["cond_stage_model.model.text_projection"]  # they slice by its size
    wanted = theirs.convert_open_clip_checkpoint(model, tensors(state))
    with open_single_file(ldm.save(tmp_path / "sd.safetensors", state)) as file:
        equal(file.components["text_encoder"], wanted)


def test_clip(tmp_path: Path):
    state = {
        f"cond_stage_model.transformer.text_model.{name.removeprefix('text_model.')}": one
        for name, one in arrays(text_encoder(2)).items()
    }
    wanted = theirs.convert_ldm_clip_checkpoint(tensors(state))
    with open_single_file(ldm.save(tmp_path / "sd.safetensors", state)) as file:
        equal(file.components["text_encoder"], wanted)


def test_a_checkpoint_that_torch_wrote(tmp_path: Path):
    """With other objects beside the state dict, some of classes that a state dict never names."""
    model = diffusers.AutoencoderKL(**VAES[0])
    optimizer = torch.optim.Adam(model.parameters())
    top = {
        "state_dict": tensors(ldm.vae_ldm(arrays(model))),
        "global_step": 12,
        "callbacks": {torch.nn.Linear: {"best": np.float64(3), "path": tmp_path}},
        "optimizer_states": [optimizer.state_dict()],
        "hyper_parameters": {"model": torch.nn.Linear(2, 2), "device": torch.device("cpu")},
        "loops": {frozenset([1]): {1, 2}, "dtype": torch.float16, "range": range(3)},
    }
    torch.save(top, tmp_path / "sd.ckpt")
    with open_single_file(tmp_path / "sd.ckpt") as file:
        equal(file.components["vae"], tensors(arrays(model)))
        assert file.global_step == 12


@pytest.mark.parametrize(
    ("channels", "name"),
    [
        (4, "StableDiffusionPipeline"),
        (9, "StableDiffusionInpaintPipeline"),
        (8, "StableDiffusionInstructPix2PixPipeline"),
        (5, "StableDiffusionDepth2ImgPipeline"),
    ],
)
def test_diffusers_loads_the_folder(tmp_path: Path, channels: int, name: str):
    parts = ldm.small()
    parts["unet"]["conv_in.weight"] = np.ones((32, channels, 3, 3), np.float32)
    convert(ldm.save(tmp_path / "sd.safetensors", ldm.one_file(parts)), tmp_path / "out")
    left = {"tokenizer": None}
    if channels == 5:
        left |= {"depth_estimator": None, "feature_extractor": None}
    pipe = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "out", **left)
    assert type(pipe).__name__ == name
    equal(arrays(pipe.unet), tensors(parts["unet"]))
    equal(arrays(pipe.vae), tensors(parts["vae"]))
    found = {n.removeprefix("text_model."): one for n, one in arrays(pipe.text_encoder).items()}
    wanted = {n.removeprefix("text_model."): one for n, one in parts["text_encoder"].items()}
    equal(found, tensors(wanted))
    assert pipe.scheduler.config.steps_offset == 1
