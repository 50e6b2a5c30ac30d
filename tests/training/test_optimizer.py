"""The optimiser against Adam as its paper has it, in float64, and its schedules at named steps."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ddpm_jax.training import Optimizer

# Thirty float32 updates; what is added is 1e-3 of what it is added to.
ROUNDING = 1e-6

RATE = 1e-3

# optax counts down from the highest rate in float32.
OF_THE_HIGHEST = 2e-7


def rates(steps: int, at: list[int], **fields: Any) -> list[float]:
    schedule = Optimizer(learning_rate=RATE, **fields).schedule(steps)
    return [float(schedule(jnp.int32(k))) / RATE for k in at]


QUARTER = np.cos(np.pi / 4)


@pytest.mark.parametrize(
    ("decay", "after"),
    [
        ("constant", {999: 1, 5000: 1}),
        ("linear", {550: 0.5, 999: 1 / 900, 1000: 0, 5000: 0}),
        ("cosine", {325: (1 + QUARTER) / 2, 550: 0.5, 775: (1 - QUARTER) / 2, 1000: 0, 5000: 0}),
    ],
)
def test_schedules(decay: Any, after: dict[int, float]) -> None:
    """A warm-up and what comes after it, none, and one that is longer than the run."""
    wanted = {0: 0, 1: 0.01, 50: 0.5, 99: 0.99, 100: 1} | after
    found = rates(1000, list(wanted), warmup_steps=100, decay=decay)
    np.testing.assert_allclose(found, list(wanted.values()), atol=OF_THE_HIGHEST)
    assert rates(10, [0], warmup_steps=0, decay=decay) == pytest.approx([1.0])
    assert rates(10, [0, 5, 9], warmup_steps=20, decay=decay) == pytest.approx([0, 0.25, 0.45])


def gradients(count: int) -> list[dict[str, np.ndarray]]:
    """Norms from about 0.1 to 10."""
    rng = np.random.default_rng(1)
    shapes = {"kernel": (3, 4), "bias": (4,)}
    return [
        {name: scale * rng.standard_normal(shape) for name, shape in shapes.items()}
        for scale in 10 ** rng.uniform(-1.5, 0.5, count)
    ]


def adam(params: dict[str, np.ndarray], optimizer: Optimizer, steps: int) -> dict[str, np.ndarray]:
    """Kingma and Ba 2015, Algorithm 1, of clipped gradients; decay as in Algorithm 2 of AdamW."""
    params = dict(params)
    m, v = (dict.fromkeys(params, 0.0) for _ in range(2))
    for k, g in enumerate(gradients(steps)):
        norm = np.sqrt(sum((leaf**2).sum() for leaf in g.values()))
        shrink = 1.0 if optimizer.clip_norm is None else min(1.0, optimizer.clip_norm / norm)
        rate = optimizer.learning_rate * min(1.0, k / optimizer.warmup_steps)
        for name, leaf in g.items():
            leaf = leaf * shrink
            m[name] = optimizer.beta1 * m[name] + (1 - optimizer.beta1) * leaf
            v[name] = optimizer.beta2 * v[name] + (1 - optimizer.beta2) * leaf**2
            m_hat = m[name] / (1 - optimizer.beta1 ** (k + 1))
            v_hat = v[name] / (1 - optimizer.beta2 ** (k + 1))
            adaptive = m_hat / (np.sqrt(v_hat) + optimizer.eps)
            params[name] = params[name] - rate * (adaptive + optimizer.weight_decay * params[name])
    return params


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"clip_norm": None},
        {"clip_norm": 0.3},
        {"beta1": 0.95, "beta2": 0.99, "weight_decay": 0.1},
        {"eps": 0.1},
    ],
    ids=str,
)
def test_is_adam(fields: dict[str, Any]) -> None:
    optimizer = Optimizer(learning_rate=1e-2, warmup_steps=10, **fields)
    start = {"kernel": np.linspace(-1, 1, 12).reshape(3, 4), "bias": np.ones(4)}
    params = jax.tree.map(jnp.float32, start)
    chain = optimizer.make(steps=30)
    state, update = chain.init(params), jax.jit(chain.update)
    for g in gradients(30):
        changes, state = update(jax.tree.map(jnp.float32, g), state, params)
        params = optax.apply_updates(params, changes)
    expected = adam(start, optimizer, 30)
    for name, leaf in params.items():
        np.testing.assert_allclose(leaf, expected[name], rtol=0, atol=ROUNDING)


def test_weight_decay_is_decoupled() -> None:
    """Without a gradient each update takes rate x decay of a parameter, and no moment sees it."""
    chain = Optimizer(learning_rate=0.1, warmup_steps=0, weight_decay=0.5).make(steps=10)
    params = {"w": jnp.array([2.0, -4.0])}
    changes, state = chain.update({"w": jnp.zeros(2)}, chain.init(params), params)
    np.testing.assert_allclose(changes["w"], [-0.1, 0.2], rtol=1e-6)
    moments = [leaf for leaf in jax.tree.leaves(state) if leaf.shape == (2,)]
    assert len(moments) == 2
    assert not any(leaf.any() for leaf in moments)
