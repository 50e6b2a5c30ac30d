"""AutoencoderKL and CLIPTextModel against diffusers' and transformers', on random weights."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from ddpm_jax.models import AutoencoderKL, CLIPTextModel, decode_tiled, encode_tiled
from tests.parity import torch_unet
from weights_convert import to_flax

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import diffusers  # noqa: E402

# Largest difference over the output's standard deviation.
TOLERANCES = {"float32": 2e-5, "float64": 1e-9}

CODERS: list[dict[str, Any]] = [
    {"block_out_channels": (8,), "layers_per_block": 1, "norm_num_groups": 4},
    {"block_out_channels": (8, 16), "layers_per_block": 2, "latent_channels": 3}
    | {"norm_num_groups": 2, "in_channels": 1, "out_channels": 2},
    {"block_out_channels": (8, 8, 16), "layers_per_block": 1, "act_fn": "mish"}
    | {"norm_num_groups": 8},
]


@pytest.fixture(params=TOLERANCES)
def dtype(request: pytest.FixtureRequest):
    jax.config.update("jax_enable_x64", request.param == "float64")
    yield request.param
    jax.config.update("jax_enable_x64", False)


def difference(ours: Any, theirs: Any) -> float:
    assert ours.shape == theirs.shape
    assert str(ours.dtype) == str(theirs.dtype)
    return float(np.abs(ours - theirs).max() / theirs.std())


def torchs(x: Any) -> Any:
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(np.asarray(x), -1, 1)))


def back(x: Any) -> np.ndarray:
    return np.moveaxis(x.numpy(), 1, -1)


@pytest.mark.parametrize(
    ("fields", "sides"), [*zip(CODERS, [(16, 16), (13, 18), (12, 8)], strict=True)], ids=range(3)
)
def test_autoencoder(fields: dict[str, Any], sides: tuple[int, int], dtype: str):
    count = len(fields["block_out_channels"])
    config = fields | {"down_block_types": ("DownEncoderBlock2D",) * count}
    config |= {"up_block_types": ("UpDecoderBlock2D",) * count}
    peer = torch_unet.make(config, kind=diffusers.AutoencoderKL).to(getattr(torch, dtype))
    model = AutoencoderKL(**config, dtype=dtype, param_dtype=dtype)
    params = to_flax(torch_unet.tensors(peer), model.shapes())
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, *sides, model.in_channels)).astype(dtype)

    def run(method: str, x: Any) -> Any:
        return jax.jit(lambda p, x: model.apply({"params": p}, x, method=method))(params, x)

    ours, theirs = run("encode", x), peer.encode(torchs(x)).latent_dist
    noise = rng.standard_normal(ours.mean.shape).astype(dtype)
    drawn = theirs.mean + theirs.std * torchs(noise)
    assert difference(ours.mean, back(theirs.mean)) <= TOLERANCES[dtype]
    assert difference(ours.std, back(theirs.std)) <= TOLERANCES[dtype]
    assert difference(ours.sample(noise), back(drawn)) <= TOLERANCES[dtype]
    decoded = peer.decode(torchs(noise)).sample
    assert difference(run("decode", noise), back(decoded)) <= TOLERANCES[dtype]


@pytest.mark.parametrize("sides", [(52, 34), (32, 58)])
def test_tiled_autoencoder(sides: tuple[int, int], dtype: str):
    """Tiles of 32 with an overlap of 8; the last ones are shorter, some than the overlap.

    In float32 rounding alone moves diffusers' images by 1.2e-5 from its own in float64, and ours
    by 1.0e-5, on an Intel Xeon; on another machine the two were 2.0e-5 apart.
    """
    tolerance = {"float32": 5e-5, "float64": 1e-9}[dtype]
    config = {"block_out_channels": (8, 8, 16), "norm_num_groups": 4, "sample_size": 32}
    config |= {"down_block_types": ("DownEncoderBlock2D",) * 3}
    config |= {"up_block_types": ("UpDecoderBlock2D",) * 3}
    peer = torch_unet.make(config, kind=diffusers.AutoencoderKL).to(getattr(torch, dtype))
    peer.enable_tiling()
    model = AutoencoderKL(**config, dtype=dtype, param_dtype=dtype)
    params = to_flax(torch_unet.tensors(peer), model.shapes())
    images = np.random.default_rng(0).standard_normal((2, *sides, 3)).astype(dtype)
    ours, theirs = encode_tiled(model, params, images), peer.encode(torchs(images)).latent_dist
    assert difference(ours.mean, back(theirs.mean)) <= tolerance
    assert difference(ours.std, back(theirs.std)) <= tolerance
    decoded = peer.decode(theirs.mean).sample
    ours = decode_tiled(model, params, back(theirs.mean))
    assert difference(ours, back(decoded)) <= tolerance


@pytest.mark.parametrize(("act", "clip_skip"), [("quick_gelu", 0), ("gelu", 1), ("quick_gelu", 3)])
def test_text_encoder(act: str, clip_skip: int, dtype: str, tmp_path: Path):
    """Read from the folder that transformers writes, whose names lack `text_model.`."""
    fields = {"vocab_size": 1000, "hidden_size": 32, "intermediate_size": 37, "hidden_act": act}
    config = transformers.CLIPTextConfig(**fields, num_hidden_layers=5, num_attention_heads=4)
    torch.manual_seed(0)
    peer = transformers.CLIPTextModel(config).eval().requires_grad_(False)
    for parameter in peer.parameters():
        parameter += 0.1 * torch.randn_like(parameter)
    peer = peer.to(getattr(torch, dtype))
    peer.save_pretrained(tmp_path)
    model, params = CLIPTextModel.from_pretrained(tmp_path, dtype=dtype, param_dtype=dtype)
    ids = np.random.default_rng(0).integers(0, 1000, (2, 77))
    ours = jax.jit(lambda p, i: model.apply({"params": p}, i, clip_skip=clip_skip))(params, ids)
    states = peer(torch.from_numpy(ids), output_hidden_states=True).hidden_states
    (norm,) = (m for name, m in peer.named_modules() if name.endswith("final_layer_norm"))
    theirs = norm(states[-1 - clip_skip]).numpy()
    assert difference(ours, theirs) <= TOLERANCES[dtype]

    model.clone(dtype="float32").save_pretrained(tmp_path / "back", params)
    again = transformers.CLIPTextModel.from_pretrained(
        tmp_path / "back", dtype=getattr(torch, dtype)
    )
    for (name, one), two in zip(peer.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(one, two), name
