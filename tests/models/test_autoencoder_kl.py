"""AutoencoderKL: sizes, its posterior, its config, and what it refuses."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpm_jax.models import AutoencoderKL
from tests.models.nets import params_of

TINY: dict[str, Any] = {
    "block_out_channels": (4, 8),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "norm_num_groups": 2,
    "latent_channels": 3,
}
VAE = AutoencoderKL(**TINY)
WIDE = AutoencoderKL(
    block_out_channels=(128, 256, 512, 512),
    down_block_types=("DownEncoderBlock2D",) * 4,
    up_block_types=("UpDecoderBlock2D",) * 4,
    layers_per_block=2,
)


@pytest.fixture(scope="module")
def params() -> dict[str, Any]:
    return params_of(VAE)


def images(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((2, height, width, 3)).astype(np.float32)


def run(method: str, params: Any, x: Any, model: AutoencoderKL = VAE) -> Any:
    return jax.jit(lambda p, x: model.apply({"params": p}, x, method=method))(params, x)


def test_the_size_of_stable_diffusion():
    leaves = jax.tree.leaves(WIDE.shapes())
    assert sum(leaf.size for leaf in leaves) == 83_653_863
    assert len(leaves) == 248
    assert WIDE.factor == 8


@pytest.mark.parametrize("sides", [(8, 6), (9, 7)])
def test_odd_sizes_are_halved_to_the_smaller(params: Any, sides: tuple[int, int]):
    posterior = run("encode", params, images(*sides))
    assert posterior.mean.shape == posterior.std.shape == (2, sides[0] // 2, sides[1] // 2, 3)
    decoded = run("decode", params, posterior.mean)
    assert decoded.shape == (2, sides[0] // 2 * 2, sides[1] // 2 * 2, 3)


def test_the_posterior(params: Any):
    """Its samples, and a std within the limits of the log variance."""
    posterior = run("encode", params, images(4, 4))
    noise = np.random.default_rng(1).standard_normal(posterior.mean.shape).astype(np.float32)
    drawn = (posterior.sample(noise) - posterior.mean) / posterior.std
    np.testing.assert_allclose(drawn, noise, atol=1e-4)
    large = jax.tree.map(lambda leaf: leaf, params)
    bias = jnp.concatenate([jnp.zeros(3), jnp.full(3, 1e4)])
    for sign, limit in ((1, np.exp(10.0)), (-1, np.exp(-15.0))):
        large["quant_conv"] = large["quant_conv"] | {"bias": sign * bias}
        np.testing.assert_allclose(run("encode", large, images(4, 4)).std, limit, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision(params: Any, dtype: str):
    half, x = VAE.clone(dtype=jnp.dtype(dtype)), images(8, 8)
    exact = run("encode", params, x).mean
    ours = run("encode", params, x, half).mean
    assert ours.dtype == jnp.float32
    assert 0 < np.abs(ours - exact).mean() < 0.05 * exact.std()


def test_files(tmp_path: Path, params: Any):
    VAE.save_pretrained(tmp_path, params)
    model, read = AutoencoderKL.from_pretrained(tmp_path)
    assert model == VAE
    jax.tree.map(np.testing.assert_array_equal, read, params)


@pytest.mark.usefixtures("as_users_run")
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"latent_channels": 0}, "latent_channels must be a positive integer"),
        ({"scaling_factor": 0}, "scaling_factor must be a number above 0"),
        ({"norm_num_groups": 3}, "norm_num_groups 3 does not divide"),
        ({"up_block_types": ("UpBlock2D",) * 2}, "'UpBlock2D', which is not supported"),
        ({"shift_factor": 0.1}, r"not supported: shift_factor=0.1 \(None is\)"),
        ({"use_quant_conv": False}, "not supported: use_quant_conv=False"),
    ],
)
def test_faults_of_a_config(fields: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        AutoencoderKL.from_config(TINY | fields)


@pytest.mark.usefixtures("as_users_run")
def test_faults_of_inputs(params: Any):
    for method, x, message in (
        ("encode", np.zeros((1, 4, 4, 4), np.float32), r"images must be .*, 3\), channels last"),
        ("decode", np.zeros((1, 3, 4, 4), np.float32), r"latents must be .*, 3\), channels last"),
        ("encode", np.zeros((1, 4, 4, 3), np.uint8), "images must hold floats, got uint8"),
    ):
        with pytest.raises(ValueError, match=message):
            run(method, params, x)
