"""The safety checker, DPT and their inputs against diffusers' and transformers', on random
weights."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from ddpm_jax import pixels
from ddpm_jax.models import DPTForDepthEstimation, StableDiffusionSafetyChecker
from tests.parity import torch_unet

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from diffusers.pipelines.stable_diffusion import safety_checker  # noqa: E402

# Largest difference over the output's standard deviation.
TOLERANCES = {"float32": 2e-5, "float64": 1e-9}
# Two roundings of numbers below 3.
PIXELS = 1e-6


@pytest.fixture(params=TOLERANCES)
def dtype(request: pytest.FixtureRequest):
    jax.config.update("jax_enable_x64", request.param == "float64")
    yield request.param
    jax.config.update("jax_enable_x64", False)


def difference(ours: Any, theirs: np.ndarray) -> float:
    assert ours.shape == theirs.shape
    assert str(ours.dtype) == str(theirs.dtype)
    return float(np.abs(ours - theirs).max() / theirs.std())


def as_torch(images: np.ndarray) -> Any:
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(images, -1, 1)))


@pytest.mark.parametrize("act", ["quick_gelu", "gelu"])
def test_safety_checker(act: str, dtype: str, tmp_path: Path):
    """Read from the folder that diffusers writes, and written for it."""
    vision = {"hidden_size": 32, "intermediate_size": 37, "num_hidden_layers": 4, "hidden_act": act}
    vision |= {"num_attention_heads": 4, "image_size": 30, "patch_size": 6, "layer_norm_eps": 1e-3}
    kind = safety_checker.StableDiffusionSafetyChecker
    config = transformers.CLIPConfig(vision_config=vision, projection_dim=16)
    peer = torch_unet.make({"config": config}, kind=kind)
    for parameter in peer.parameters():
        parameter += 0.05 * torch.randn_like(parameter)
    for embeds in (peer.concept_embeds, peer.special_care_embeds):
        embeds[:] = torch.randn_like(embeds)
    x = np.random.default_rng(0).standard_normal((40, 30, 30, 3)).astype(dtype)
    peer = peer.to(getattr(torch, dtype))
    features = peer.visual_projection(peer.vision_model(as_torch(x))[1])

    # Thresholds are such that about half of the images are flagged, some by special care alone.
    special = safety_checker.cosine_distance(features, peer.special_care_embeds)
    concepts = safety_checker.cosine_distance(features, peer.concept_embeds)
    peer.special_care_embeds_weights[:] = special.quantile(0.8, dim=0)
    peer.concept_embeds_weights[:] = concepts.quantile(0.97, dim=0)
    _, theirs = peer(as_torch(x), np.zeros((40, 1)))
    without = ((concepts - peer.concept_embeds_weights).round(decimals=3) > 0).any(1).tolist()
    assert 10 < sum(theirs) < 30
    assert theirs != without

    peer.save_pretrained(tmp_path)
    model, params = StableDiffusionSafetyChecker.from_pretrained(
        tmp_path, dtype=dtype, param_dtype=dtype
    )
    run = jax.jit(lambda p, x, m: model.apply({"params": p}, x, method=m), static_argnums=2)
    assert difference(run(params, x, "embed"), features.numpy()) <= TOLERANCES[dtype]
    assert run(params, x, "__call__").tolist() == theirs

    model.save_pretrained(tmp_path / "back", params)
    again = kind.from_pretrained(tmp_path / "back", dtype=getattr(torch, dtype))
    for (name, one), two in zip(peer.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(one, two), name
    assert torch.equal(features, again.visual_projection(again.vision_model(as_torch(x))[1]))


DEPTH: dict[str, Any] = {
    "is_hybrid": True,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 37,
    "backbone_out_indices": [0, 0, 0, 2],
    "neck_hidden_sizes": [32, 64, 24, 40],
    "reassemble_factors": [1, 1, 1, 0.5],
    "fusion_hidden_size": 12,
    "backbone_featmap_shape": [1, 96, 24, 24],
}
BACKBONE: dict[str, Any] = {
    "embedding_size": 6,
    "hidden_sizes": [32, 64, 96],
    "depths": [1, 2, 1],
    "num_groups": 2,
    "layer_type": "bottleneck",
    "global_padding": "same",
    "embedding_dynamic_padding": True,
    "out_features": ["stage1", "stage2", "stage3"],
}


@pytest.mark.parametrize(
    "fields", [{"image_size": 32}, {"image_size": 96, "qkv_bias": False, "hidden_act": "silu"}]
)
def test_depth(fields: dict[str, Any], dtype: str, tmp_path: Path):
    """Read from the folder that transformers writes, and written for it."""
    kind, side = transformers.DPTForDepthEstimation, fields["image_size"]
    backbone = transformers.BitConfig(**BACKBONE)
    config = transformers.DPTConfig(**DEPTH | fields, backbone_config=backbone)
    peer = torch_unet.make({"config": config}, kind=kind)
    for parameter in peer.parameters():
        parameter += 0.05 * torch.randn_like(parameter)
    x = np.random.default_rng(0).standard_normal((2, side, side, 3)).astype(dtype)
    peer = peer.to(getattr(torch, dtype))
    # About half of the pixels are cut off at 0.
    last, seen = peer.head.head[4], []
    hook = last.register_forward_hook(lambda _, __, output: seen.append(output))
    peer(as_torch(x))
    hook.remove()
    last.bias -= seen[0].median()
    theirs = peer(as_torch(x)).predicted_depth.numpy()
    assert 0.3 < (theirs == 0).mean() < 0.7

    peer.save_pretrained(tmp_path)
    model, params = DPTForDepthEstimation.from_pretrained(tmp_path, dtype=dtype, param_dtype=dtype)
    run = jax.jit(lambda p, x, model: model.apply({"params": p}, x), static_argnums=2)
    ours = run(params, x, model)
    assert difference(ours, theirs) <= TOLERANCES[dtype]
    if dtype == "float32":
        half = run(params, x, model.clone(dtype="bfloat16"))
        assert half.dtype == ours.dtype
        assert 0 < np.abs(half - ours).mean() < 0.05 * theirs.std()

    model.save_pretrained(tmp_path / "back", params)
    again = kind.from_pretrained(tmp_path / "back", dtype=getattr(torch, dtype))
    for (name, one), two in zip(peer.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(one, two), name
    back = again(as_torch(x)).predicted_depth.detach().numpy()
    assert difference(back, theirs) <= TOLERANCES[dtype]


@pytest.mark.parametrize(
    "shape", [(224, 224), (512, 512), (768, 512), (333, 500), (100, 60), (225, 1000)]
)
def test_pixels(shape: tuple[int, int]):
    images = np.random.default_rng(0).integers(0, 256, (2, *shape, 3)).astype(np.uint8)
    for name, ours in (
        ("CLIPImageProcessorPil", pixels.for_clip(images, 224)),
        ("DPTImageProcessorPil", pixels.for_depth(images, 384)),
    ):
        theirs = getattr(transformers, name)()(list(images), return_tensors="np")["pixel_values"]
        assert np.abs(ours - np.moveaxis(theirs, 1, -1)).max() <= PIXELS, name
