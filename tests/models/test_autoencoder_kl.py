"""AutoencoderKL: sizes, its posterior, tiles, its config, and what it refuses."""

import itertools
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpm_jax.models import AutoencoderKL, decode_tiled, encode_tiled
from ddpm_jax.models.autoencoder_kl import tiling
from tests.models.nets import draw, params_of

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
    return draw(2, height, width, 3)


SIDES = (8, 6)
"""Of most pictures here: they share compiled programs."""


@partial(jax.jit, static_argnames=("method", "model"))
def run(method: str, params: Any, x: Any, model: AutoencoderKL = VAE) -> Any:
    return model.apply({"params": params}, x, method=method)


def test_the_size_of_stable_diffusion():
    leaves = jax.tree.leaves(WIDE.shapes())
    assert sum(leaf.size for leaf in leaves) == 83_653_863
    assert len(leaves) == 248
    assert WIDE.factor == 8


@pytest.mark.parametrize("sides", [SIDES, (9, 7)])
def test_odd_sizes_are_halved_to_the_smaller(params: Any, sides: tuple[int, int]):
    posterior = run("encode", params, images(*sides))
    assert posterior.mean.shape == posterior.std.shape == (2, sides[0] // 2, sides[1] // 2, 3)
    decoded = run("decode", params, posterior.mean)
    assert decoded.shape == (2, sides[0] // 2 * 2, sides[1] // 2 * 2, 3)


def test_the_posterior(params: Any):
    """Its samples, and a std within the limits of the log variance."""
    posterior = run("encode", params, images(*SIDES))
    noise = np.random.default_rng(1).standard_normal(posterior.mean.shape).astype(np.float32)
    drawn = (posterior.sample(noise) - posterior.mean) / posterior.std
    np.testing.assert_allclose(drawn, noise, atol=1e-4)
    large = jax.tree.map(lambda leaf: leaf, params)
    bias = jnp.concatenate([jnp.zeros(3), jnp.full(3, 1e4)])
    for sign, limit in ((1, np.exp(10.0)), (-1, np.exp(-15.0))):
        large["quant_conv"] = large["quant_conv"] | {"bias": sign * bias}
        np.testing.assert_allclose(run("encode", large, images(*SIDES)).std, limit, rtol=1e-5)


def test_tiles_are_joined_where_they_overlap(params: Any, count_compilations: Any):
    """Each part of the picture comes from its tile; in between, from both. A second picture of
    other sizes, with tiles of the same shapes, compiles nothing."""
    latents = images(6, 15)[..., :3]
    decode = partial(tiling._apply, VAE, "decode")
    # Tiles of 8 latent pixels begin at 0, 6 and 12; they share the last 2 of 8.
    joined = decode_tiled(VAE, params, latents, tile=16)
    first, second = decode(params, latents[:, :, :8]), decode(params, latents[:, :, 6:14])
    third = decode(params, latents[:, :, 12:])
    assert joined.shape == (2, 12, 30, 3)
    np.testing.assert_allclose(joined[:, :, :12], first[:, :, :12], atol=1e-5)
    np.testing.assert_allclose(joined[:, :, 16:24], second[:, :, 4:12], atol=1e-5)
    middle = 0.25 * np.asarray(second[:, :, 1]) + 0.75 * np.asarray(first[:, :, 13])
    np.testing.assert_allclose(joined[:, :, 13], middle, atol=1e-5)
    np.testing.assert_allclose(joined[:, :, 28:], third[:, :, 4:], atol=1e-5)
    with count_compilations() as compiled:
        decode_tiled(VAE, params, images(6, 21)[..., :3], tile=16)
    assert compiled.count == 0


def test_one_tile_is_one_piece(params: Any):
    picture = images(*SIDES)
    whole, tiled = run("encode", params, picture), encode_tiled(VAE, params, picture, tile=8)
    jax.tree.map(np.testing.assert_array_equal, tiled, whole)


def test_tiles_are_of_whole_pixels_of_the_latents():
    """A quarter of 5 is 2, in the latents and, twice that, in the picture."""
    assert tiling._sides(VAE, 10, 0.25) == (5, 2)
    assert tiling._sides(VAE, None, 0.25) == (16, 4)
    assert tiling._sides(VAE.clone(sample_size=(9, 40)), None, 0.5) == (4, 2)
    with pytest.raises(ValueError, match="tile must be a positive multiple of 2 pixels, got 0"):
        tiling._sides(VAE.clone(sample_size=None), None, 0.25)


@pytest.mark.parametrize("side", [1, 2, 3, 4])
@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.8])
def test_tiles_of_any_picture(side: int, share: float):
    """Where a pixel depends on itself alone, the picture is that of one piece, at any size."""
    shared = int(side * share)
    for height, width in itertools.product((2, 5, 11), range(2, 31, 3)):
        x = images(height, width)
        for before, after in ((1, 2), (2, 1)):

            def change(x: np.ndarray, before: int = before, after: int = after) -> np.ndarray:
                halved = x[:, before - 1 :: before, before - 1 :: before]
                return halved.repeat(after, axis=1).repeat(after, axis=2)

            joined = tiling._tiled(change, x, side, shared, before, after)
            np.testing.assert_allclose(joined, change(x), rtol=1e-6)


@pytest.mark.usefixtures("as_users_run")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tile": 7}, "tile must be a positive multiple of 2 pixels, got 7"),
        ({"tile": 0}, "tile must be a positive multiple of 2 pixels, got 0"),
        ({"overlap": 1.0}, r"overlap must lie in \[0, 1\)"),
        ({"tile": 2, "overlap": 0.25}, "tiles of 1 do not share, got 0.25"),
    ],
)
def test_faults_of_tiles(params: Any, options: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        decode_tiled(VAE, params, images(8, 8), **options)
    with pytest.raises(ValueError, match=r"latents must be .*, 3\)"):
        decode_tiled(VAE, params, np.zeros((1, 4, 4, 4), np.float32))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision(params: Any, dtype: str):
    half, x = VAE.clone(dtype=jnp.dtype(dtype)), images(*SIDES)
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
