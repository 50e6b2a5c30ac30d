"""Attention and the blocks around it, against their definitions in float64 NumPy."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from ddpm_jax.models.layers import attention
from ddpm_jax.models.layers.attention import Attention, attend
from ddpm_jax.models.layers.config import LayerConfig
from ddpm_jax.models.layers.resnet import ResnetBlock
from ddpm_jax.models.layers.unet_blocks import DownBlock, MidBlock, UpBlock, make_transformer
from tests.models.nets import draw

# float32 sums of up to a hundred terms of size one
ROUNDING = 5e-6

F32 = jnp.dtype("float32")
CONFIG = LayerConfig(groups=2, head_dim=3, dtype=F32, param_dtype=F32)


def drawn(module: nn.Module, *args: Any) -> dict[str, Any]:
    """Params that all affect the output."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), *args)
    leaves, tree = jax.tree.flatten(shapes)
    return tree.unflatten(
        [jax.device_put(draw(*leaf.shape, seed=i) / 2) for i, leaf in enumerate(leaves)]
    )


def weighted_means(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, mask: np.ndarray | None = None
) -> np.ndarray:
    """One query at a time, over the keys of its mask; arrays are (sequence, width)."""
    rows = []
    for i, query in enumerate(q.astype(np.float64)):
        keys = np.arange(len(k)) if mask is None else np.flatnonzero(mask[i])
        weights = [math.exp(query @ k[j].astype(np.float64) / math.sqrt(len(query))) for j in keys]
        rows.append(sum(w * v[j].astype(np.float64) for w, j in zip(weights, keys, strict=True)))
        rows[-1] /= sum(weights)
    return np.stack(rows)


def by_head(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, mask: np.ndarray | None = None
) -> np.ndarray:
    """The same for (batch, sequence, heads, width)."""
    heads = [
        [
            weighted_means(q[b, :, h], k[b, :, h], v[b, :, h], None if mask is None else mask[b, h])
            for h in range(q.shape[2])
        ]
        for b in range(len(q))
    ]
    return np.asarray(heads).transpose(0, 2, 1, 3)


MASKS = {
    "none": None,
    "causal": np.tril(np.ones((1, 1, 5, 7), bool)),
    "one for each head": np.random.default_rng(5).random((2, 3, 5, 7)) < 0.5,
    "padding": np.arange(7)[None, None, None] < np.array([4, 7])[:, None, None, None],
}
MASKS["one for each head"][..., 0] = True  # a query needs a key


@pytest.mark.parametrize("name", MASKS)
def test_attend(name: str):
    mask = MASKS[name]
    q, k, v = draw(2, 5, 3, 4), draw(2, 7, 3, 4, seed=1), draw(2, 7, 3, 4, seed=2)
    full = None if mask is None else np.broadcast_to(mask, (2, 3, 5, 7))
    ours = attend(*map(jnp.asarray, (q, k, v)), None if mask is None else jnp.asarray(mask))
    np.testing.assert_allclose(ours, by_head(q, k, v, full), atol=ROUNDING)


def test_a_query_without_a_key_is_nan():
    q = k = v = jnp.ones((1, 2, 1, 4))
    out = attend(q, k, v, jnp.array([[[[False, False], [True, False]]]]))
    assert np.isnan(out[0, 0]).all()
    np.testing.assert_array_equal(out[0, 1], 1)


def attention_of(params: Any, x: np.ndarray, context: np.ndarray, head_dim: int) -> np.ndarray:
    """Attention with its linear maps; x and context are (batch, sequence, width)."""

    def linear(name: str, sequence: np.ndarray) -> np.ndarray:
        kernel, bias = (np.asarray(params[name][key], np.float64) for key in ("kernel", "bias"))
        return sequence.astype(np.float64) @ kernel + bias

    q, k, v = linear("to_q", x), linear("to_k", context), linear("to_v", context)
    split = [y.reshape(*y.shape[:2], -1, head_dim) for y in (q, k, v)]
    return linear("to_out.0", by_head(*split).reshape(*q.shape))


@pytest.mark.parametrize("crossed", [False, True])
def test_attention(crossed: bool):
    # heads of 3 in a width of 8: two of them, 6 channels
    x, context = draw(2, 5, 8), draw(2, 7, 10, seed=1) if crossed else None
    args = (jnp.asarray(x), None if context is None else jnp.asarray(context))
    variables = drawn(Attention(CONFIG), *args)
    expected = attention_of(variables["params"], x, x if context is None else context, 3)
    np.testing.assert_allclose(Attention(CONFIG).apply(variables, *args), expected, atol=ROUNDING)


def test_a_residual_block_without_an_embedding():
    """It has no linear map of an embedding, and equals a block with a map of zero."""
    x = jnp.asarray(draw(2, 4, 4, 6))
    block = ResnetBlock(CONFIG, features=8)
    variables = drawn(block, x)
    names = {"norm1", "conv1", "norm2", "conv2", "conv_shortcut"}
    assert set(variables["params"]) == names
    none = {"kernel": jnp.zeros((5, 8)), "bias": jnp.zeros(8)}
    embedded = {"params": variables["params"] | {"time_emb_proj": none}}
    np.testing.assert_allclose(
        block.apply(variables, x), block.apply(embedded, x, jnp.ones((2, 5))), atol=ROUNDING
    )


TRANSFORMER = make_transformer(CONFIG, heads=2)
BLOCKS = {
    "down": DownBlock(CONFIG, 8, 1, TRANSFORMER, None, 1),
    "mid": MidBlock(CONFIG, TRANSFORMER, 1.0),
    "up": UpBlock(CONFIG, 8, 1, TRANSFORMER, None),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_with_transformers_attend_to_a_context(name: str):
    block, x, emb = BLOCKS[name], jnp.asarray(draw(2, 4, 4, 8)), jnp.asarray(draw(2, 5))
    first = (x, [x], emb) if name == "up" else (x, emb)
    contexts = jnp.asarray(draw(2, 7, 10, seed=1)), jnp.asarray(draw(2, 7, 10, seed=2))
    variables = drawn(block, *first, contexts[0])
    transformer = variables["params"]["attentions.0"]["transformer_blocks.0"]
    assert transformer["attn1"]["to_k"]["kernel"].shape[0] == 8
    assert transformer["attn2"]["to_k"]["kernel"].shape[0] == 10
    a, b = (jax.tree.leaves(block.apply(variables, *first, context))[0] for context in contexts)
    assert np.abs(a - b).max() > 1e-3


@pytest.mark.parametrize("length", [1, 13])
def test_a_long_sequence_in_parts(length: int, monkeypatch: pytest.MonkeyPatch):
    """The same result and gradient as at once, also where the parts are not equal."""
    q, k, v = (jnp.asarray(draw(2, n, 3, 4, seed=n)) for n in (length, 7, 8))
    k = k[:, :7]
    v = v[:, :7]

    def loss(q: jax.Array, k: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array]:
        out = attend(q, k, v)
        return jnp.sum(jnp.sin(out)), out

    (_, whole), wanted = jax.value_and_grad(loss, (0, 1, 2), has_aux=True)(q, k, v)
    monkeypatch.setattr(attention, "MAX_SCORES", 4 * 7 * 3)
    assert "scan" in str(jax.make_jaxpr(attend)(q, k, v)) or length <= 4
    (_, parts), got = jax.value_and_grad(loss, (0, 1, 2), has_aux=True)(q, k, v)
    np.testing.assert_allclose(parts, whole, atol=ROUNDING)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=ROUNDING), got, wanted)


def test_scores_of_float16_do_not_overflow():
    """Stable Diffusion 2.1's logits exceed 65,504."""
    large = jnp.full((1, 3, 1, 64), 60.0, jnp.float16) * jnp.array([1, -1, 1])[None, :, None, None]
    out = attend(large.astype(jnp.float16), large.astype(jnp.float16), large.astype(jnp.float16))
    np.testing.assert_array_equal(out, large)
