"""Attention by cuDNN: where it is chosen, and what goes into its call. XLA stands in for cuDNN."""

from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models.test_unet_attention import ROUNDING, by_head

from ddpm_jax.models.layers import attention, cudnn
from tests.models.nets import draw


def arrays(width: int, dtype: Any = jnp.float32) -> list[jax.Array]:
    shapes = (2, 5, 3, width), (2, 7, 3, width), (2, 7, 3, width)
    return [jnp.asarray(draw(*shape, seed=i), dtype) for i, shape in enumerate(shapes)]


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cudnn, "has_programs", lambda: True)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of q that reach the call."""
    shapes, original = [], jax.nn.dot_product_attention

    def call(q: Any, k: Any, v: Any, *, scale: float, implementation: str) -> jax.Array:
        assert implementation == "cudnn"
        shapes.append(q.shape)
        return original(q, k, v, scale=scale, implementation="xla")

    monkeypatch.setattr(jax.nn, "dot_product_attention", call)
    return shapes


@pytest.mark.usefixtures("on_gpu")
@pytest.mark.parametrize(
    ("width", "dtypes", "chosen"),
    [
        (40, "bbb", True),
        (80, "hhh", True),
        (128, "bbb", True),
        (6, "bbb", True),
        (160, "bbb", False),
        (40, "fff", False),
        (40, "bfb", False),
    ],
)
def test_shapes(width: int, dtypes: str, chosen: bool):
    kinds = {"b": jnp.bfloat16, "h": jnp.float16, "f": jnp.float32}
    given = [x.astype(kinds[name]) for x, name in zip(arrays(width), dtypes, strict=True)]
    assert cudnn.applies(*given) == chosen


@pytest.mark.parametrize(
    ("backend", "capability", "devices", "chosen"),
    [
        ("gpu", "8.0", 1, True),
        ("gpu", "12.0", 1, True),
        ("gpu", "7.5", 1, False),
        ("gpu", "9.0", 2, False),
        ("gpu", "gfx942", 1, False),
        ("tpu", None, 1, False),
    ],
)
def test_devices(
    backend: str,
    capability: str | None,
    devices: int,
    chosen: bool,
    monkeypatch: pytest.MonkeyPatch,
):
    found = SimpleNamespace(**({"compute_capability": capability} if capability else {}))
    monkeypatch.setattr(jax, "local_devices", lambda: [found])
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    monkeypatch.setattr(jax, "device_count", lambda: devices)
    assert cudnn.has_programs() == chosen


@pytest.mark.skipif(jax.default_backend() == "gpu", reason="a GPU has the other program")
def test_other_programs_are_unchanged():
    given = arrays(8, jnp.bfloat16)
    ours, plain = (jax.make_jaxpr(f)(*given) for f in (attention.attend, attention._by_xla))
    assert str(ours) == str(plain)


@pytest.mark.parametrize(("width", "padded"), [(6, 8), (8, 8), (20, 24)])
def test_padded_heads(width: int, padded: int, stand_in: list[tuple[int, ...]]):
    q, k, v = arrays(width)
    expected = by_head(*map(np.asarray, (q, k, v)))
    np.testing.assert_allclose(cudnn.attend(q, k, v), expected, atol=ROUNDING)
    assert stand_in == [(2, 5, 3, padded)]


def test_mapped(stand_in: list[tuple[int, ...]]):
    """Over queries with one context for all, and twice: one call with a larger batch."""
    q, k, v = arrays(8)
    queries = jnp.stack([q, -q, 2 * q])
    mapped = jax.vmap(cudnn.attend, (0, None, None))
    found = jax.vmap(mapped, (None, 0, 0))(queries, jnp.stack([k, -k]), jnp.stack([v, v]))
    assert stand_in[-1] == (12, 5, 3, 8)
    for i, keys in enumerate((k, -k)):
        for j, query in enumerate(queries):
            np.testing.assert_allclose(found[i, j], cudnn.attend(query, keys, v), atol=ROUNDING)


@pytest.mark.usefixtures("on_gpu", "stand_in")
def test_derivatives_are_of_xla():
    """Of every order, in both modes; and the call itself is in the undifferentiated program."""

    def loss(*args: jax.Array) -> jax.Array:
        return jnp.square(attention.attend(*args).astype(jnp.float32)).sum()

    given = arrays(8, jnp.bfloat16)
    gradient = jax.grad(loss, (0, 1, 2))
    for derived in (gradient, lambda *args: jax.jvp(gradient, args, args)):
        assert "platform_index" not in str(jax.make_jaxpr(derived)(*given))
    assert "platform_index" in str(jax.make_jaxpr(loss)(*given))


@pytest.mark.usefixtures("on_gpu")
def test_the_cpu_beside_a_gpu(monkeypatch: pytest.MonkeyPatch):
    """A program for it is XLA's, although the default device is a GPU."""
    monkeypatch.setattr(jax.nn, "dot_product_attention", lambda q, *_args, **_options: 0 * q)
    given = jax.device_put(arrays(8, jnp.bfloat16), jax.devices("cpu")[0])
    expected = jax.jit(attention._by_xla)(*given)
    np.testing.assert_array_equal(jax.jit(attention.attend)(*given), expected)
    assert np.abs(expected).max() > 0


@pytest.mark.gpu
@pytest.mark.parametrize(("n", "width"), [(4096, 40), (64, 80), (5, 6)])
def test_on_a_gpu(n: int, width: int):
    """77 keys, as in Stable Diffusion. bfloat16 has 8 bits."""
    shapes = (2, n, 8, width), (2, 77, 8, width), (2, 77, 8, width)
    exact = [jnp.asarray(draw(*shape, seed=i)) for i, shape in enumerate(shapes)]
    half = [x.astype(jnp.bfloat16) for x in exact]
    program = jax.jit(attention.attend).lower(*half)
    assert ("cudnn" in program.as_text()) == cudnn.has_programs()
    expected = np.asarray(attention._by_xla(*(x.astype(jnp.float32) for x in half)))
    found = np.asarray(program.compile()(*half), np.float32)
    np.testing.assert_allclose(found, expected, atol=2e-2)
