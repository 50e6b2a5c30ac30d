"""One table samples a bare function, an Equinox module, an NNX module and a Haiku function."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ddpm_jax as dj

# Every network here is x -> tanh(x w + t / 1000 b), with these weights.
W = np.array([[0.5, -0.2], [0.1, 0.4]], np.float32)
B = np.array([0.3, -0.1], np.float32)
SHAPE = (3, 3, 2)
KEYS = dj.sample_keys(jax.random.key(0, impl="unsafe_rbg"), 2)
TABLE = dj.DDIMScheduler(prediction_type="v_prediction").table(5, eta=0.5)

# One matrix product more or less in another order.
SAME = {"rtol": 1e-5, "atol": 1e-5}


def bare(params: dict[str, Any], x: jax.Array, timestep: jax.Array) -> jax.Array:
    return jnp.tanh(x @ params["w"] + timestep / 1000 * jnp.expand_dims(params["b"], (0, 1, 2)))


@pytest.fixture(scope="module")
def x_T() -> jax.Array:
    return dj.prior(TABLE, KEYS, SHAPE)


@pytest.fixture(scope="module")
def expected(x_T: jax.Array) -> jax.Array:
    return dj.sample(bare, {"w": W, "b": B}, TABLE, x_T, KEYS)


def test_bare_function(x_T: jax.Array, expected: jax.Array) -> None:
    """Compared with the same loop in NumPy, without any library."""
    from tests.schedulers.propagate import propagate

    def network(x: np.ndarray, i: int) -> np.ndarray:
        return np.tanh(x @ W + float(TABLE.timestep[i]) / 1000 * B)

    noise = [np.asarray(dj.noise(KEYS, i, SHAPE)) for i in range(5)]
    host = propagate(TABLE, network, np.asarray(x_T, np.float64), noise)[-1]
    np.testing.assert_allclose(expected, host, **SAME)


def test_equinox(x_T: jax.Array, expected: jax.Array) -> None:
    eqx = pytest.importorskip("equinox")

    class Net(eqx.Module):
        w: jax.Array
        b: jax.Array

        def __call__(self, x, timestep):
            return bare({"w": self.w, "b": self.b}, x, timestep)

    net = Net(jnp.asarray(W), jnp.asarray(B))
    # The module is a pytree, so the params are the module.
    x_0 = dj.sample(lambda net, x, t: net(x, t), net, TABLE, x_T, KEYS)
    np.testing.assert_allclose(x_0, expected, **SAME)


def test_nnx(x_T: jax.Array, expected: jax.Array) -> None:
    nnx = pytest.importorskip("flax.nnx")

    class Net(nnx.Module):
        def __init__(self):
            self.w, self.b = nnx.Param(jnp.asarray(W)), nnx.Param(jnp.asarray(B))

        def __call__(self, x, timestep):
            return bare({"w": self.w[...], "b": self.b[...]}, x, timestep)

    graph, state = nnx.split(Net())
    # The graph is static and belongs to `denoise`; the state is the params.
    x_0 = dj.sample(lambda s, x, t: nnx.merge(graph, s)(x, t), state, TABLE, x_T, KEYS)
    np.testing.assert_allclose(x_0, expected, **SAME)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # haiku's own use of jax
def test_haiku(x_T: jax.Array, expected: jax.Array) -> None:
    hk = pytest.importorskip("haiku")

    def forward(x, timestep):
        w = hk.get_parameter("w", W.shape, init=hk.initializers.Constant(W))
        b = hk.get_parameter("b", B.shape, init=hk.initializers.Constant(B))
        return bare({"w": w, "b": b}, x, timestep)

    net = hk.without_apply_rng(hk.transform(forward))
    params = net.init(jax.random.key(0), x_T, jnp.float32(0))
    x_0 = dj.sample(net.apply, params, TABLE, x_T, KEYS)
    np.testing.assert_allclose(x_0, expected, **SAME)
