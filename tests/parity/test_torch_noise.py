"""The numbers of torch's generator."""

import numpy as np
import pytest
import torch

import ddpm_jax as dj
from ddpm_jax.evaluation import published
from tests.parity import torch_unet
from weights_convert import to_flax

UNITS = 4
"""In the last place, from 16 numbers on: torch's logarithm and cosine are its own approximations,
by CPU. Measured on x86 with AVX2: 3 over 10 million numbers."""

SHAPES = [
    (1, 1, 1, 1), (1, 1, 2, 1), (1, 5, 3, 1), (1, 2, 2, 4), (1, 1, 17, 1), (2, 3, 5, 1),
    (1, 8, 8, 1), (3, 7, 5, 3), (1, 32, 32, 3), (2, 64, 64, 4), (1, 123, 45, 3),
]  # fmt: skip


def randn(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    b, h, w, c = shape
    generator = torch.Generator().manual_seed(seed)
    return np.moveaxis(torch.randn((b, c, h, w), generator=generator).numpy(), 1, -1)


@pytest.mark.parametrize("seed", [0, 1, 42, 2**31, 2**32 - 1, 2**32 + 7, 2**63 - 1, -1, -12345])
def test_many_shapes(seed: int):
    for shape in SHAPES:
        ours, theirs = dj.torch_noise(seed, shape), randn(seed, shape)
        assert ours.dtype == theirs.dtype == np.float32
        if theirs.size < 16:
            np.testing.assert_array_equal(ours, theirs)
        else:
            np.testing.assert_array_max_ulp(ours, theirs, UNITS)


def test_a_million_numbers():
    shape = (1, 1000, 1000, 1)
    np.testing.assert_array_max_ulp(dj.torch_noise(3, shape), randn(3, shape), UNITS)


def test_a_network_is_verified_as_the_published_outputs_were_made(monkeypatch: pytest.MonkeyPatch):
    config = {
        "sample_size": 32,
        "block_out_channels": (16, 32),
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        "norm_num_groups": 8,
    }
    peer = torch_unet.make(config)
    torch.manual_seed(0)
    x = torch.randn(1, 3, 32, 32)
    values = peer(x, torch.tensor([10])).sample[0, 0, 0, :30].numpy()
    name = "google/ddpm-cifar10-32"
    monkeypatch.setitem(published.OUTPUTS, name, values)
    model = dj.UNet2DModel(**config)
    params = to_flax(torch_unet.tensors(peer), model.shapes())
    assert published.compare(model, params, name).difference < 1e-5
    other_heads = dj.UNet2DModel(**config, attention_head_dim=None)  # weights of the same shapes
    assert not published.compare(other_heads, params, name).agree
