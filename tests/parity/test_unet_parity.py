"""UNet2DModel against diffusers', in float32, on random weights."""

from typing import Any

import numpy as np
import pytest

from tests.models.nets import CAT, CIFAR10
from tests.parity.pairs import Case, cases
from tests.parity.torch_unet import difference
from tests.parity.unet_cases import FACTORS, config_of, inputs_of

# Largest difference over largest output, both float32. Measured at most 2e-6 over all cases here.
PARITY = 2e-5

CASES = cases(FACTORS)


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


@pytest.mark.parametrize(
    "config",
    [CIFAR10, CIFAR10 | {"attention_head_dim": None}, CAT],
    ids=["cifar10", "one head", "cat"],
)
def test_the_topologies_of_public_checkpoints(config: dict[str, Any]):
    """A quarter of their widths, on small images."""
    widths = [width // 4 for width in config["block_out_channels"]]
    x = np.random.default_rng(0).standard_normal((2, 32, 32, 3)).astype(np.float32)
    narrow = config | {"block_out_channels": widths}
    assert difference(narrow, x, np.array([10, 999])) <= PARITY
