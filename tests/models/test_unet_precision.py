"""The bundled digits, sampled in half precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ddpm_jax as dj
from ddpm_jax.models import UNet2DModel

# Mean absolute difference of images in [0, 1]
TWO_GREY_LEVELS = 2 / 255


def ddim_50(dtype: str) -> np.ndarray:
    model, params = UNet2DModel.from_pretrained("digits", dtype=dtype)
    table = dj.DDIMScheduler.from_pretrained("digits").table(50)
    x_T = dj.prior(table, dj.sample_keys(jax.random.key(0), 16), shape=(8, 8, 1))
    x_0 = dj.sample(lambda p, x, t: model.apply({"params": p}, x, t), params, table, x_T)
    return np.asarray(jnp.clip(x_0 / 2 + 0.5, 0, 1))


@pytest.fixture(scope="module")
def exact() -> np.ndarray:
    return ddim_50("float32")


@pytest.mark.slow  # fast: test_unet_call has the network in half precision
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_ddim_on_the_digits(dtype: str, exact: np.ndarray):
    difference = np.abs(ddim_50(dtype) - exact)  # a NaN fails the comparison
    assert difference.mean() <= TWO_GREY_LEVELS
    assert difference.max() > 0
