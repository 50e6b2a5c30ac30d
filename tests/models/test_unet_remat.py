"""Blocks that the backward pass recomputes: the same network, draws and gradients."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpm_jax.models import UNet2DModel
from tests.models.nets import TINY, images, params_of

CONFIG = TINY | {"out_channels": 2, "dropout": 0.2}
ONE_SIZE = {
    "block_out_channels": (8,),
    "down_block_types": ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",),
}
"""Five residual blocks and an attention, which compile in a third of the time."""

# Other programs compute the same float32 sums. Relative to each leaf's largest gradient.
ROUNDING = 1e-5


def model_of(remat: bool, **config: Any) -> UNet2DModel:
    return UNet2DModel(**CONFIG | config, remat=remat)


def loss(model: UNet2DModel, params: Any, x: jax.Array, key: jax.Array) -> jax.Array:
    timestep = jnp.arange(len(x))
    output = model.apply({"params": params}, x, timestep, train=True, rngs={"dropout": key})
    return jnp.mean((output - 1) ** 2)


def compiled(remat: bool, side: int, **config: Any) -> tuple[Any, tuple[Any, ...]]:
    """The program of loss and gradients, and its arguments."""
    model = model_of(remat, **config)
    args = (params_of(model), images(4, side, 2), jax.random.key(3))
    program = jax.jit(jax.value_and_grad(lambda *args: loss(model, *args)))
    return program.lower(*args).compile(), args


def test_same_loss_and_gradients() -> None:
    """The loss shows that the draws of dropout are also the same."""
    (stored_loss, stored), (recomputed_loss, recomputed) = (
        program(*args)
        for program, args in (compiled(remat, 8, **ONE_SIZE) for remat in (False, True))
    )
    assert float(recomputed_loss) == pytest.approx(float(stored_loss), rel=ROUNDING)
    assert jax.tree.structure(stored) == jax.tree.structure(recomputed)
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(stored))
    for a, b in zip(jax.tree.leaves(stored), jax.tree.leaves(recomputed), strict=True):
        np.testing.assert_allclose(b, a, rtol=0, atol=ROUNDING * largest)


@pytest.mark.gpu  # XLA for the CPU undoes it
def test_less_memory() -> None:
    """Eight residual blocks and four attentions keep their inputs, and the inside of one of them.

    Measured with the inputs stored by hand on a CPU: 0.45 of the memory.
    """
    stored, recomputed = (
        compiled(remat, 16)[0].memory_analysis().temp_size_in_bytes for remat in (False, True)
    )
    assert recomputed <= 0.6 * stored


@pytest.mark.parametrize("resampler", ["conv", "resnet"])
def test_same_params(resampler: str) -> None:
    config = {"downsample_type": resampler, "upsample_type": resampler}
    assert model_of(True, **config).shapes() == model_of(False, **config).shapes()


def test_config_does_not_have_it() -> None:
    assert "remat" not in model_of(True).config
    assert UNet2DModel.from_config(model_of(True).config, remat=True) == model_of(True)


def test_bfloat16_and_loops_are_traced() -> None:
    """Blocks compute in bfloat16, the embedding in float32; and several steps are one scan."""
    model = model_of(True, dtype=jnp.bfloat16)

    def two(params: Any, xs: jax.Array, key: jax.Array) -> Any:
        step = jax.grad(lambda params, x: loss(model, params, x, key))
        return jax.lax.scan(lambda carry, x: (step(carry, x), None), params, xs)[0]

    xs = jnp.zeros((2, 2, 8, 8, 2))
    out = jax.eval_shape(two, params_of(model), xs, jax.random.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(out)} == {jnp.dtype("float32")}
