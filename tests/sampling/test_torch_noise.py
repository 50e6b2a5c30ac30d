"""Torch's random numbers; tests/parity/test_torch_noise.py compares them with torch."""

import numpy as np

import ddpm_jax as dj

RANDN_2_2_2_2 = [
    -1.1258398294448853, -1.152360200881958, -0.2505785822868347, -0.4338788092136383,
    0.8487103581428528, 0.6920091509819031, -0.31601276993751526, -2.1152193546295166,
    0.32227492332458496, -1.2633347511291504, 0.34998318552970886, 0.30813392996788025,
    0.11984150856733322, 1.237657904624939, 1.1167771816253662, -0.2472781538963318,
]  # fmt: skip
"""torch.randn(2, 2, 2, 2) after torch.manual_seed(0), as torch 2.13 prints it."""


def test_numbers_of_torch():
    """Sixteen numbers are one block; (B, C, H, W) becomes (B, H, W, C)."""
    theirs = np.moveaxis(np.reshape(RANDN_2_2_2_2, (2, 2, 2, 2)), 1, -1).astype(np.float32)
    np.testing.assert_array_max_ulp(dj.torch_noise(0, (2, 2, 2, 2)), theirs, 4)


def test_the_last_block_is_drawn_once_more():
    whole, more = dj.torch_noise(5, (1, 1, 32, 1)).ravel(), dj.torch_noise(5, (1, 1, 40, 1)).ravel()
    assert np.array_equal(whole[:24], more[:24])
    assert not np.isin(more[24:], whole).any()


def test_numbers_are_normal():
    numbers = np.sort(dj.torch_noise(1, (1, 100, 100, 1)).ravel())
    normal = np.sort(np.random.default_rng(0).standard_normal(10_000))
    assert np.abs(numbers - normal)[100:-100].max() < 0.1
