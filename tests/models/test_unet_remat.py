"""Rematerialised blocks: the same network and gradients, out of less memory."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpm_jax.models import UNet2DModel
from tests.models.nets import TINY, params_of, pictures

CONFIG = TINY | {"out_channels": 2, "dropout": 0.2}

# The same sums in other programs, float32: of each leaf's gradient, against the largest of them.
ROUNDING = 1e-5

# Eight residual blocks and four attentions keep what is inside them, or only their input and the
# inside of one of them. Measured: 0.45, and 0.27 with two layers at 32x32.
SHARE_OF_MEMORY = 0.6


def model_of(remat: bool, **config: Any) -> UNet2DModel:
    return UNet2DModel(**CONFIG | config, remat=remat)


def loss(model: UNet2DModel, params: Any, x: jax.Array, key: jax.Array) -> jax.Array:
    timestep = jnp.arange(len(x))
    output = model.apply({"params": params}, x, timestep, train=True, rngs={"dropout": key})
    return jnp.mean((output - 1) ** 2)


@pytest.fixture(scope="module")
def runs() -> dict[bool, tuple[Any, Any, int]]:
    """Value, gradient and bytes of scratch memory, without and with."""
    x, key = pictures(4, 16, 2), jax.random.key(3)
    found = {}
    for remat in (False, True):
        model = model_of(remat)
        params = params_of(model)
        of = jax.jit(jax.value_and_grad(lambda *args, m=model: loss(m, *args)))
        compiled = of.lower(params, x, key).compile()
        memory = compiled.memory_analysis().temp_size_in_bytes
        found[remat] = (*compiled(params, x, key), memory)
    return found


def test_same_loss(runs: Any) -> None:
    """To the bit on the CPU of today: the forward pass is the same program, dropout's draws too."""
    assert float(runs[True][0]) == pytest.approx(float(runs[False][0]), rel=ROUNDING)


def test_same_gradients(runs: Any) -> None:
    kept, again = runs[False][1], runs[True][1]
    assert jax.tree.structure(kept) == jax.tree.structure(again)
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(kept))
    for a, b in zip(jax.tree.leaves(kept), jax.tree.leaves(again), strict=True):
        np.testing.assert_allclose(b, a, rtol=0, atol=ROUNDING * largest)


def test_less_memory(runs: Any) -> None:
    """XLA for the CPU undoes `jax.checkpoint`, so this can fail."""
    assert runs[True][2] <= SHARE_OF_MEMORY * runs[False][2]


@pytest.mark.parametrize("resampler", ["conv", "resnet"])
def test_same_params(resampler: str) -> None:
    config = {"downsample_type": resampler, "upsample_type": resampler}
    assert model_of(True, **config).shapes() == model_of(False, **config).shapes()


def test_config_says_nothing_of_it() -> None:
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
