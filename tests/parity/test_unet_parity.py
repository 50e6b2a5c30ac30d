"""UNet2DModel against diffusers', in float32, on random weights."""

from typing import Any

import jax
import numpy as np
import pytest

from ddpm_jax.models import UNet2DModel
from tests.models.nets import CAT, CIFAR10
from tests.parity import torch_unet
from tests.parity.pairs import Case, all_pairs, cases, pairs_of
from tests.parity.unet_cases import FACTORS, config_of, inputs_of
from weights_convert import to_flax

# Largest difference over largest output, both float32. Measured at most 2e-6 over all cases here.
PARITY = 2e-5

CASES = cases(FACTORS)


def difference(config: dict[str, Any], x: Any, timestep: Any, labels: Any = None) -> float:
    peer = torch_unet.make(config)
    model = UNet2DModel(**config)
    params = to_flax(torch_unet.tensors(peer), model.shapes())
    ours = jax.jit(model.apply)({"params": params}, x, timestep, labels)
    theirs = torch_unet.call(peer, x, timestep, labels)
    assert ours.shape == theirs.shape
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def test_the_cases_hold_every_pair_of_options():
    assert len(CASES) >= 30
    assert set().union(*map(pairs_of, CASES)) == all_pairs(FACTORS)


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_every_pair_of_options(case: Case):
    assert difference(config_of(case), *inputs_of(case, seed=1)) <= PARITY


def test_one_block():
    config = {
        "block_out_channels": (16,),
        "down_block_types": ("AttnDownBlock2D",),
        "up_block_types": ("AttnUpBlock2D",),
        "norm_num_groups": 8,
    }
    x = np.random.default_rng(0).standard_normal((2, 5, 7, 3)).astype(np.float32)
    assert difference(config, x, np.array([0, 999])) <= PARITY


@pytest.mark.parametrize("head_dim", [8, None])
def test_the_cifar10_checkpoint(head_dim: int | None):
    config = CIFAR10 | {"attention_head_dim": head_dim}
    x = np.random.default_rng(0).standard_normal((2, 32, 32, 3)).astype(np.float32)
    assert difference(config, x, np.array([10, 999])) <= PARITY


def test_the_cat_checkpoint():
    # 64x64 in place of 256x256: the same parameters, a sixteenth of the work
    x = np.random.default_rng(0).standard_normal((1, 64, 64, 3)).astype(np.float32)
    assert difference(CAT, x, np.array([500])) <= PARITY
