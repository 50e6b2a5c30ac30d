"""UNet2DModel against recorded outputs of diffusers."""

import jax
import numpy as np
import pytest

from ddpm_jax.models import UNet2DModel
from tests.goldens.unet_goldens import CONFIGS, read
from weights_convert import to_flax

# Largest difference over largest output, float32 on both sides.
PARITY = 2e-5


@pytest.mark.parametrize("name", CONFIGS)
def test_output_equals_that_of_diffusers(name: str):
    weights, case = read(name)
    model = UNet2DModel.from_config(CONFIGS[name])
    params = to_flax(weights, model.shapes())
    output = jax.jit(model.apply)(
        {"params": params}, case["x"], case["timestep"], case.get("labels")
    )
    difference = np.abs(output - case["output"]).max() / np.abs(case["output"]).max()
    assert difference <= PARITY
