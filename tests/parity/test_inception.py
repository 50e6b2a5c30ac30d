"""Inception-v3 with random weights against pytorch-fid's and torch-fidelity's; their resizing."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import torch
from evaluation.inception_weights import random_params
from PIL import Image

from ddpm_jax.evaluation.features import FeatureNetwork, Outputs, collect_features
from ddpm_jax.evaluation.inception import InceptionV3
from ddpm_jax.evaluation.networks import inception_features
from ddpm_jax.evaluation.resizing import RESIZINGS
from tests.parity import inception_peers as peers

peers.torchvision()

CLOSE = 2e-5
"""Relative to the largest: 94 convolutions in float32."""

SHAPES = [(2, 64, 48, 3), (1, 299, 299, 3), (1, 400, 310, 3)]


def images(shape: tuple[int, ...]) -> np.ndarray:
    """Smooth at the left, noise at the right."""
    rng = np.random.default_rng(1)
    noise = rng.integers(0, 256, shape)
    ramp = np.linspace(0, 255, shape[2])[None, None, :, None]
    return np.where(np.arange(shape[2])[:, None] < shape[2] // 2, ramp, noise).astype(np.uint8)


@pytest.fixture(scope="module")
def params() -> Any:
    return jax.device_put(random_params())


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The random weights as torch wrote the published file: in the format from before the zip."""
    file = tmp_path_factory.mktemp("weights") / "old.pth"
    state = peers.pytorch_fid_network().state_dict()
    assert any("num_batches_tracked" in name for name in state)
    torch.save(state, file, _use_new_zipfile_serialization=False)
    return file


def ours(weights: Path, resize: str, pixels: np.ndarray) -> Any:
    with pytest.warns(UserWarning, match="not the published file"):
        network = inception_features(weights, resize=resize)
    return collect_features(network, [pixels])


def same(found: Any, wanted: Any) -> None:
    wanted = np.asarray(wanted)
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() <= CLOSE * np.abs(wanted).max()
    assert wanted.std() > 0.01  # else this says nothing


def as_torch(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy())


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_pytorch_fid(weights: Path, shape: tuple[int, ...]) -> None:
    pixels = images(shape)
    with torch.no_grad():
        (wanted,) = peers.pytorch_fid_wrapped()(as_torch(pixels) / 255)
    same(ours(weights, "pytorch-fid", pixels).features, wanted[:, :, 0, 0])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_torch_fidelity(weights: Path, tmp_path: Path, shape: tuple[int, ...]) -> None:
    """With torch-fidelity's own resizing. The Inception score takes logits without the bias."""
    pixels = images(shape)
    features, unbiased, _ = peers.torch_fidelity_network(tmp_path)(as_torch(pixels))
    found = ours(weights, "torch-fidelity", pixels)
    same(found.features, features)
    same(found.logits, unbiased)


def test_logits_with_the_bias(params: Any) -> None:
    x = np.random.default_rng(3).uniform(-1, 1, (2, 299, 299, 3)).astype(np.float32)
    with torch.no_grad():
        wanted = peers.pytorch_fid_network()(torch.from_numpy(x.transpose(0, 3, 1, 2).copy()))
    found: Any = jax.jit(InceptionV3().apply)({"params": params}, x)
    same(found.logits, wanted)


def raw(params: Any, x: Any) -> Outputs:
    return Outputs(x.reshape(len(x), -1), None)


def resized(name: str, pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The network's input, as a network of no layers gives it back."""
    network = FeatureNetwork(
        name="raw", apply=raw, params={}, size=size, channels=3, resizing=RESIZINGS[name],
        dims=size[0] * size[1] * 3, classes=None, weights="",
    )  # fmt: skip
    found = collect_features(network, [pixels], ["features"]).features
    assert found is not None
    return found.reshape(len(pixels), *size, 3)


def sizes() -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    rng = np.random.default_rng(5)
    for _ in range(12):
        old, new = rng.integers(1, 90, (2, 2)).tolist()
        yield tuple(old), tuple(new)
    yield (32, 32), (299, 299)
    yield (512, 300), (299, 299)


@pytest.mark.parametrize(("old", "new"), list(sizes()), ids=str)
def test_resizing(old: tuple[int, int], new: tuple[int, int]) -> None:
    """To 2e-6 of the range, which is 2: some roundings of float32. Those of a place in an image
    grow with its size."""
    from torch_fidelity.interpolate_compat_tensorflow import (
        interpolate_bilinear_2d_like_tensorflow1x as tensorflow,
    )

    pixels = np.random.default_rng(6).integers(0, 256, (2, *old, 3)).astype(np.uint8)
    x = as_torch(pixels).float()
    middles = torch.nn.functional.interpolate(x / 255, new, mode="bilinear", align_corners=False)
    corners = tensorflow(x, new, align_corners=False)
    wanted = {"pytorch-fid": 2 * middles - 1, "torch-fidelity": (corners - 128) / 128}
    close = 4e-6 * max(1, max(old) / 64)
    for name, tensor in wanted.items():
        found = resized(name, pixels, new)
        np.testing.assert_allclose(found, tensor.numpy().transpose(0, 2, 3, 1), atol=close, rtol=0)


def test_the_bicubic_resizing_is_pillows(weights: Path) -> None:
    """clean-fid: mode F, one channel at a time, clipped; then the network of torch-fidelity."""
    pixels = images((1, 64, 48, 3))
    planes = [Image.fromarray(pixels[0, ..., c].astype(np.float32), mode=None) for c in range(3)]
    large = [np.asarray(plane.resize((299, 299), Image.Resampling.BICUBIC)) for plane in planes]
    x = (np.stack(large)[None].clip(0, 255) - 128) / 128
    wanted = []
    network = peers.pytorch_fid_network()
    hook = network.avgpool.register_forward_hook(lambda *args: wanted.append(args[2]))
    with torch.no_grad():
        network(torch.from_numpy(x.astype(np.float32)))
    hook.remove()
    same(ours(weights, "clean-fid", pixels).features, wanted[0][:, :, 0, 0])
