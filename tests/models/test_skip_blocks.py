"""The blocks of NCSN++: the smooth filter, the image pyramids, and what a config may combine."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpm_jax.models import UNet2DModel
from ddpm_jax.models.layers.fir import double_smooth, halve_smooth
from tests.models.nets import draw, params_of

# float32 sums of 16 terms
ROUNDING = 1e-6

SMALL: dict[str, Any] = {
    "block_out_channels": (8, 32),
    "down_block_types": ("SkipDownBlock2D", "AttnSkipDownBlock2D"),
    "up_block_types": ("SkipUpBlock2D", "SkipUpBlock2D"),
    "layers_per_block": 1,
    "norm_num_groups": None,
    "mid_block_type": None,
}
MODEL = UNet2DModel(**SMALL)
THREE: dict[str, Any] = {"block_out_channels": (8, 8, 8), "norm_num_groups": 4}


@pytest.mark.parametrize("resample", [halve_smooth, double_smooth])
def test_the_smooth_filter_has_no_preferred_axis(resample: Any):
    """The goldens have its numbers, for images as high as wide."""
    x = jnp.asarray(draw(2, 4, 6, 3))
    turned = resample(x.swapaxes(1, 2)).swapaxes(1, 2)
    np.testing.assert_allclose(resample(x), turned, atol=ROUNDING)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("resample", [halve_smooth, double_smooth])
def test_half_precision_is_rounded_once(dtype: str, resample: Any):
    x = jnp.asarray(draw(1, 4, 6, 2), dtype)
    found = resample(x)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, resample(x.astype(jnp.float32)).astype(dtype))


@partial(jax.jit, static_argnums=0)
def output(model: UNet2DModel, params: Any, x: np.ndarray) -> jax.Array:
    return model.apply({"params": params}, x, jnp.array([7.0]))


def test_the_network_in_half_precision():
    params, x = params_of(MODEL), draw(1, 4, 4, 3)
    exact = output(MODEL, params, x)
    half = output(UNet2DModel(**SMALL, dtype="bfloat16"), params, x)
    assert half.dtype == jnp.float32
    assert 0 < float(jnp.abs(half - exact).max()) <= 0.05 * float(jnp.abs(exact).max())


def test_the_pyramids_images_reach_the_output():
    """With all of h silenced at the end, the output is what the up path's pyramid adds."""
    params, x = params_of(MODEL), draw(1, 4, 4, 3)
    silent = params | {"conv_out": jax.tree.map(jnp.zeros_like, params["conv_out"])}
    image = output(MODEL, silent, x)
    own = silent["up_blocks.0"]["skip_conv"]
    moved = silent["up_blocks.0"] | {"skip_conv": own | {"bias": own["bias"] + 1.0}}
    shift = output(MODEL, silent | {"up_blocks.0": moved}, x) - image
    expected = double_smooth(jnp.ones((1, 2, 2, 3)))
    np.testing.assert_allclose(shift, expected, atol=1e-5)


def test_gradients_of_the_pyramids_are_finite():
    """Where blocks are recomputed too."""
    small = SMALL | {"block_out_channels": (8, 8), "down_block_types": ("SkipDownBlock2D",) * 2}
    model, x = UNet2DModel(**small, remat=True), draw(1, 2, 2, 3)

    def loss(params: Any) -> Any:
        return jnp.sum(model.apply({"params": params}, x, jnp.array([7.0])) ** 2)

    found = jax.jit(jax.grad(loss))(params_of(model))
    for name in ("down_blocks.0", "up_blocks.0"):
        grad = np.asarray(found[name]["skip_conv"]["kernel"])
        assert np.isfinite(grad).all()
        assert np.abs(grad).max() > 0


SKIP, PLAIN = ("SkipDownBlock2D",) * 3, ("SkipUpBlock2D",) * 3
FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"in_channels": 1}, "down_block_types with Skip need in_channels 3, got 1"),
    ({"out_channels": 6}, "up_block_types with Skip need out_channels 3, got 6"),
    (
        {"down_block_types": ("DownBlock2D", *SKIP[1:])},
        "a Skip block must not come after another kind",
    ),
    (
        {"up_block_types": (*PLAIN[1:], "UpBlock2D")},
        "another kind of block must not come after a Skip block",
    ),
    (
        {"norm_num_groups": None, "up_block_types": ("UpBlock2D", *PLAIN[1:])},
        "norm_num_groups None is only for Skip blocks, and here is 'UpBlock2D'",
    ),
    ({"norm_num_groups": 3}, "norm_num_groups 3 makes 3 groups of 8 channels"),
    ({"block_out_channels": (8, 14, 8)}, "14 channels in 3, 22 channels in 5 groups"),
    ({"block_out_channels": (8, 3, 8)}, "3 channels in 0, 11 channels in 2 groups"),
    (
        {"down_block_types": ("AttnSkipDownBlock2D", *SKIP[1:])},
        "8 channels in 32 groups, which do not divide",
    ),
]


@pytest.mark.parametrize(("change", "message"), FAULTS, ids=lambda v: str(v)[:40])
def test_what_cannot_be_combined_is_refused(change: dict[str, Any], message: str):
    blocks = {"down_block_types": SKIP, "up_block_types": PLAIN}
    with pytest.raises(ValueError, match=message):
        UNet2DModel(**THREE | blocks | change)


@pytest.mark.parametrize(
    "change",
    [
        {"down_block_types": ("SkipDownBlock2D", "DownBlock2D", "SkipDownBlock2D")},
        {"up_block_types": ("UpBlock2D", "SkipUpBlock2D", "SkipUpBlock2D")},
        {"down_block_types": (*("DownBlock2D",) * 2, "SkipDownBlock2D"), "in_channels": 1},
        {"up_block_types": (*("UpBlock2D",) * 2, "SkipUpBlock2D"), "out_channels": 6},
    ],
    ids=str,
)
def test_what_can_be_combined(change: dict[str, Any]):
    assert UNet2DModel(**THREE | {"down_block_types": SKIP, "up_block_types": PLAIN} | change)


def test_groups_matter_only_outside_of_skip_blocks():
    """Of the middle block and of the output's norm."""
    UNet2DModel(**SMALL | {"block_out_channels": (8, 32), "norm_num_groups": 8})
    with pytest.raises(ValueError, match="norm_num_groups 32 makes 32 groups of 8 channels"):
        UNet2DModel(**SMALL | {"norm_num_groups": 32})
    UNet2DModel(**SMALL | {"block_out_channels": (32, 64), "norm_num_groups": 32})
