"""Calls of UNet2DModel: properties that hold for all weights."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpm_jax.models import UNet2DModel
from tests.models.nets import TINY, images, params_of

# The order of float32 sums may differ between programs; outputs are of size one.
REORDERED = 5e-6

MODEL = UNet2DModel(**TINY)
LABELLED = UNet2DModel(**TINY, num_class_embeds=5)

SMALL = TINY | {
    "block_out_channels": (8,),
    "down_block_types": ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",),
}
"""One size, five residual blocks and an attention: what these tests compile. The goldens compile
networks of several sizes.
"""
ONE = UNet2DModel(**SMALL)


@pytest.fixture(scope="module")
def params() -> dict[str, Any]:
    return params_of(ONE)


def run(model: UNet2DModel, params: Any, *inputs: Any, **options: Any) -> jax.Array:
    return jax.jit(lambda p, *i: model.apply({"params": p}, *i, **options))(params, *inputs)


@pytest.fixture(scope="module")
def evaluate(params: dict[str, Any]):
    """The small model, compiled once for each shape."""
    apply = jax.jit(ONE.apply)
    return lambda x, timestep: apply({"params": params}, x, timestep)


@pytest.mark.slow  # fast: test_unet_goldens compiles each network
def test_jit_changes_nothing(params, evaluate):
    x, timestep = images(2, 8, 2), jnp.array([10.0, 999.0])
    eager = ONE.apply({"params": params}, x, timestep)
    np.testing.assert_allclose(evaluate(x, timestep), eager, atol=REORDERED)


def test_an_image_does_not_depend_on_its_batch(evaluate):
    x, timestep = images(2, 8, 2), jnp.array([1.0, 999.0])
    together = evaluate(x, timestep)
    for b in range(2):
        alone = evaluate(x[b : b + 1], timestep[b : b + 1])
        np.testing.assert_allclose(together[b : b + 1], alone, atol=REORDERED)


def test_timesteps_of_all_forms(evaluate):
    """One for the whole batch, and integers."""
    x = images(2, 8, 2)
    each = evaluate(x, jnp.full(2, 7.0))
    assert (each.shape, each.dtype) == ((2, 8, 8, 3), jnp.float32)
    np.testing.assert_allclose(evaluate(x, jnp.float32(7)), each, atol=REORDERED)
    np.testing.assert_array_equal(evaluate(x, jnp.full(2, 7)), each)


def test_adjacent_timesteps_differ(evaluate):
    x = jnp.repeat(images(1, 8, 2), 2, axis=0)
    for apart in (1.0, 0.5):
        a, b = evaluate(x, jnp.array([998.0, 998.0 + apart]))
        assert np.abs(a - b).max() > 1e-3


def test_labels_matter_and_outside_the_table_are_nan():
    x = jnp.repeat(images(1, 8, 2), 3, axis=0)
    model = UNet2DModel(**SMALL, num_class_embeds=5)
    output = run(model, params_of(model), x, jnp.float32(10), jnp.array([0, 1, 5]))
    assert np.abs(output[0] - output[1]).max() > 1e-3
    assert np.isnan(output[2]).all()
    assert not np.isnan(output[:2]).any()


# bfloat16 has 8 bits of mantissa, float16 has 11; measured 2e-2 and 2e-3 of the largest output
@pytest.mark.parametrize(("dtype", "tolerance"), [("bfloat16", 5e-2), ("float16", 6e-3)])
def test_half_precision_is_near_float32(params, evaluate, dtype: str, tolerance: float):
    x, timestep = jnp.repeat(images(1, 8, 2), 2, axis=0), jnp.array([998.0, 999.0])
    exact = evaluate(x, timestep)
    half = run(UNet2DModel(**SMALL, dtype=dtype), params, x, timestep)
    assert half.dtype == jnp.float32
    assert np.abs(half - exact).max() <= tolerance * np.abs(exact).max()
    assert not np.array_equal(half, exact)
    # bfloat16 itself has no 999
    assert not np.array_equal(half[0], half[1])


def test_gradients_are_finite_and_reach_every_parameter(params):
    x, timestep = images(2, 8, 2), jnp.array([10.0, 999.0])
    target = images(2, 8, 3, seed=1)

    def loss(p):
        return jnp.square(ONE.apply({"params": p}, x, timestep) - target).mean()

    gradients = jax.jit(jax.grad(loss))(params)
    for path, gradient in jax.tree_util.tree_leaves_with_path(gradients):
        assert np.isfinite(gradient).all(), path
        # Softmax ignores a constant in all scores of a query, so the keys' bias has no gradient.
        assert np.abs(gradient).max() > 1e-8 or path[-2].key == "to_k", path


class TestDropout:
    model = UNet2DModel(**SMALL, dropout=0.5, center_input_sample=True)

    def test_is_off_unless_training_and_centering_maps_zero_one_to_minus_one_one(
        self, params, evaluate
    ):
        x, timestep = images(2, 8, 2), jnp.array([5.0, 6.0])
        ours = run(self.model, params, (x + 1) / 2, timestep)
        np.testing.assert_allclose(ours, evaluate(x, timestep), atol=REORDERED)

    def test_draws_from_the_key(self, params):
        x = images(2, 8, 2)
        train = jax.jit(
            lambda key: self.model.apply(
                {"params": params}, x, 5.0, train=True, rngs={"dropout": key}
            )
        )
        first, again, other = (train(jax.random.key(seed)) for seed in (0, 0, 1))
        np.testing.assert_array_equal(first, again)
        assert not np.array_equal(first, other)


IDENTITY = UNet2DModel(**TINY, class_embed_type="identity")


@pytest.mark.usefixtures("as_users_run")
@pytest.mark.parametrize(
    ("model", "x", "timestep", "labels", "message"),
    [
        (MODEL, (2, 9, 8, 2), (), None, "must be multiples of 2, because .* got 9 x 8"),
        (MODEL, (2, 0, 8, 2), (), None, "got 0 x 8"),
        (MODEL, (2, 8, 8, 3), (), None, r"must be \(batch, height, width, 2\), .* \(2, 8, 8, 3\)"),
        (MODEL, (8, 8, 2), (), None, r"must be \(batch, height, width, 2\)"),
        (MODEL, (2, 8, 8, 2), (1,), None, r"scalar or of shape \(2,\), got shape \(1,\)"),
        (MODEL, (2, 8, 8, 2), (2, 1), None, r"got shape \(2, 1\)"),
        (MODEL, (2, 8, 8, 2), (), np.zeros(2, int), "this model has no class embedding"),
        (LABELLED, (2, 8, 8, 2), (), None, "class_labels are missing"),
        (LABELLED, (2, 8, 8, 2), (), np.zeros(3, int), r"of shape \(2,\), got shape \(3,\)"),
        (LABELLED, (2, 8, 8, 2), (), np.zeros(2), "must be integers, got float"),
        (LABELLED, (2, 8, 8, 2), (3,), None, r"timestep must be .*; class_labels are missing"),
        (IDENTITY, (2, 8, 8, 2), (), np.zeros(2), r"of shape \(2, 32\), got shape \(2,\)"),
    ],
)
def test_wrong_inputs_are_refused_before_any_computation(
    model: UNet2DModel, x: Any, timestep: Any, labels: Any, message: str
):
    call = lambda x, t: model.apply({"params": {}}, x, t, labels)  # noqa: E731
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(call, jnp.zeros(x), jnp.zeros(timestep))


@pytest.mark.usefixtures("as_users_run")
def test_images_of_integers_are_refused():
    with pytest.raises(ValueError, match="x must hold floats, got uint8"):
        MODEL.apply({"params": {}}, np.zeros((1, 8, 8, 2), np.uint8), 0)


def test_a_call_without_params_says_what_to_write():
    with pytest.raises(TypeError, match=r"a model has no params: write model\.denoise\(params"):
        ONE(np.zeros((1, 4, 4, 3)), 5)
