"""The step: which draws, which gradient, what is kept and given away, what is compiled."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ddpm_jax as dj
from ddpm_jax.training import (
    Ema,
    Objective,
    Optimizer,
    TrainState,
    init_state,
    make_loss,
    make_train_step,
    make_train_steps,
    make_update,
)
from tests.models.nets import TINY, params_of

# float32 means over sixteen rows, in another order.
ROUNDING = 2e-6

KEY = jax.random.key(7)
ADAM = Optimizer(learning_rate=0.1, warmup_steps=3, clip_norm=0.5).make(steps=10)


def params() -> dict[str, jax.Array]:
    rng = np.random.default_rng(0)
    return {"w": jnp.float32(rng.standard_normal((5, 3))), "b": jnp.float32(rng.standard_normal(3))}


def batches(count: int, size: int = 16) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(1)
    return [
        {
            "image": rng.standard_normal((size, 5)).astype(np.float32),
            "label": rng.integers(0, 3, size).astype(np.int32),
        }
        for _ in range(count)
    ]


def start(optimizer: Any = ADAM) -> TrainState:
    return init_state(params(), optimizer, KEY)


def plain(params: Any, batch: Any, key: jax.Array) -> Any:
    """A mean over the batch, without randomness."""
    error = batch["image"] @ params["w"] + params["b"][None] - batch["label"][:, None]
    return jnp.mean(error**2), {"loss": jnp.mean(error**2), "bias": jnp.mean(error)}


def noisy(params: Any, batch: Any, key: jax.Array) -> Any:
    """Its rows are noised, as a diffusion loss does."""
    noise = jax.random.normal(key, batch["image"].shape)
    return plain(params, {**batch, "image": batch["image"] + noise}, key)


def draws(params: Any, batch: Any, key: jax.Array) -> Any:
    """Its gradient is what it draws."""
    return jnp.sum(params["w"] * jax.random.normal(key, (5, 3))), {}


def run(step: Any, state: TrainState, data: Any) -> tuple[TrainState, list[Any]]:
    found = []
    for batch in data:
        state, metrics = step(state, batch)
        found.append({name: float(value) for name, value in metrics.items()})
    return state, found


def assert_same(one: Any, other: Any) -> None:
    """To the bit."""
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(*map(jax.tree.leaves, (one, other)), strict=True):
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def train_step() -> Any:
    """One compiled step of Adam on the noised loss."""
    return make_train_step(make_update(noisy, ADAM, Ema(decay=0.9)))


# Draws.


def test_step_k_draws_from_the_key_and_k() -> None:
    """Rate 1: what is left of the params after each step is what it drew."""
    descent = optax.sgd(1.0)
    step = make_train_step(make_update(draws, descent))
    zeros = jax.tree.map(jnp.zeros_like, params())
    for k in (0, 1, 5):
        state = dataclasses.replace(init_state(zeros, descent, KEY), step=jnp.int32(k))
        found = step(state, batches(1)[0])[0]
        expected = jax.random.normal(jax.random.fold_in(KEY, k), (5, 3))
        np.testing.assert_array_equal(found.params["w"], -expected)
        assert int(found.step) == k + 1
        assert found.key == KEY


def test_a_resumed_run_is_the_same_run(train_step: Any) -> None:
    data = batches(6)
    whole, metrics = run(train_step, start(), data)
    half, _ = run(train_step, start(), data[:3])
    saved = jax.tree.map(np.asarray, dataclasses.replace(half, key=jax.random.key_data(half.key)))
    back = jax.tree.map(jnp.asarray, saved)
    back = dataclasses.replace(back, key=jax.random.wrap_key_data(back.key))
    resumed, later = run(train_step, back, data[3:])
    assert_same(resumed, whole)
    assert later == metrics[3:]
    assert len({m["loss"] for m in metrics}) == 6  # and steps differ


# Accumulation.


def test_parts_of_a_batch_are_the_batch() -> None:
    """Without randomness four parts give the gradient, and the metrics, of the whole."""
    (whole, expected), (parts, metrics) = (
        run(make_train_step(make_update(plain, ADAM, accumulate=a)), start(), batches(3))
        for a in (1, 4)
    )
    for name in whole.params:
        np.testing.assert_allclose(parts.params[name], whole.params[name], rtol=0, atol=ROUNDING)
    for a, b in zip(metrics, expected, strict=True):
        assert a == pytest.approx(b, rel=1e-5)
    assert int(parts.step) == 3


def test_parts_draw_each_their_own() -> None:
    """The mean of two draws that are independent, and not one of them twice."""
    descent = optax.sgd(1.0)
    before = init_state(jax.tree.map(jnp.zeros_like, params()), descent, KEY)
    after, _ = make_update(draws, descent, accumulate=2)(before, batches(1)[0])
    keys = jax.random.split(jax.random.fold_in(KEY, 0), 2)
    first, second = (jax.random.normal(key, (5, 3)) for key in keys)
    np.testing.assert_allclose(after.params["w"], -(first + second) / 2, rtol=ROUNDING)


def test_parts_that_do_not_divide() -> None:
    with pytest.raises(ValueError, match="accumulate must be at least 1, got 0"):
        make_update(plain, ADAM, accumulate=0)
    step = make_train_step(make_update(plain, ADAM, accumulate=3))
    with pytest.raises(ValueError, match="a batch of 16 does not divide into 3 equal parts"):
        step(start(), batches(1)[0])


# Several steps in a call.


def test_several_steps_in_one_call_are_those_steps(train_step: Any) -> None:
    """To the bit, on this backend: the body of the scan is the step."""
    data = batches(4)
    single, metrics = run(train_step, start(), data)
    together = make_train_steps(make_update(noisy, ADAM, Ema(decay=0.9)))
    found, stacked = together(start(), jax.tree.map(lambda *leaves: np.stack(leaves), *data))
    assert_same(found, single)
    for name, values in stacked.items():
        np.testing.assert_array_equal(values, np.float32([m[name] for m in metrics]))


# What is kept, given away and compiled.


def test_the_state_is_donated_and_what_it_was_made_of_is_not(train_step: Any) -> None:
    mine, key = params(), jax.random.key(3)
    state = init_state(mine, ADAM, key)
    after, _ = train_step(state, batches(1)[0])
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves((state.params, state.ema)))
    for leaf in jax.tree.leaves((mine, key, after)):
        assert not leaf.is_deleted()
    np.testing.assert_array_equal(mine["w"], params()["w"])


def test_one_compilation_a_shape(count_compilations: Any) -> None:
    step = make_train_step(make_update(noisy, ADAM))
    state, many, few = start(), batches(3, 16), batches(2, 8)
    with count_compilations() as compiled:
        for batch in many:
            state, _ = step(state, batch)
        assert compiled.count == 1
        for batch in few:
            state, _ = step(state, batch)
        assert compiled.count == 2


def test_metrics_are_the_loss_s_and_the_norm_before_clipping(train_step: Any) -> None:
    batch = batches(1)[0]
    _, metrics = train_step(start(), batch)
    assert set(metrics) == {"loss", "bias", "grad_norm"}
    gradient = jax.grad(noisy, has_aux=True)(params(), batch, jax.random.fold_in(KEY, 0))[0]
    norm = np.sqrt(sum(float(jnp.sum(leaf**2)) for leaf in jax.tree.leaves(gradient)))
    assert norm > 1  # ADAM clips at 0.5
    assert float(metrics["grad_norm"]) == pytest.approx(norm, rel=1e-5)


def test_the_average_counts_updates_from_one() -> None:
    """With a warm-up the first update forgets the start; a constant average keeps most of it."""
    descent = optax.sgd(0.1)
    before, batch = start(descent), batches(1)[0]
    warm, _ = make_update(plain, descent, Ema(power=0.75))(before, batch)
    constant, _ = make_update(plain, descent, Ema(decay=0.9))(before, batch)
    by_default, _ = make_update(plain, descent)(before, batch)
    old, new = np.asarray(before.params["w"]), np.asarray(warm.params["w"])
    assert np.abs(new - old).min() > 1e-3
    np.testing.assert_allclose(warm.ema["w"], new, rtol=1e-5)
    np.testing.assert_allclose(constant.ema["w"], 0.9 * old + 0.1 * new, rtol=1e-5)
    np.testing.assert_allclose(by_default.ema["w"] - old, 1e-4 * (new - old), rtol=5e-2, atol=1e-7)


# The state.


def test_the_first_state() -> None:
    state = start()
    assert (int(state.step), state.step.dtype) == (0, jnp.int32)
    assert_same(state.params, params())
    assert_same(state.ema, params())
    assert state.key == init_state(params(), ADAM, jax.random.PRNGKey(7)).key == KEY
    with pytest.raises(TypeError, match="a key is"):
        init_state(params(), ADAM, jnp.zeros(3))


def test_half_precision_params_are_trained_in_float32() -> None:
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params())
    state = init_state(half, ADAM, KEY)
    floats = [leaf for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    assert {leaf.dtype for leaf in floats} == {jnp.dtype("float32")}
    np.testing.assert_array_equal(state.params["w"], half["w"].astype(jnp.float32))


# With the network.


@pytest.mark.slow  # fast: test_half_precision_params_are_trained_in_float32
def test_a_unet_in_bfloat16() -> None:
    """Classes, dropped labels, dropout, remat, parts and a learned variance, all at once."""
    config = TINY | {
        "out_channels": 4,
        "block_out_channels": (8,),
        "down_block_types": ("AttnDownBlock2D",),
        "up_block_types": ("UpBlock2D",),
        "num_class_embeds": 4,
        "dropout": 0.1,
    }
    model = dj.UNet2DModel(**config, dtype=jnp.bfloat16, remat=True)
    scheduler = dj.DDPMScheduler(variance_type="learned_range")
    loss = make_loss(model, scheduler, Objective(loss="hybrid", label_dropout=0.1))
    step = make_train_step(make_update(loss, ADAM, accumulate=2))
    before = params_of(model)
    state = init_state(before, ADAM, KEY)
    rng = np.random.default_rng(2)
    batch = {
        "image": rng.uniform(-1, 1, (4, 8, 8, 2)).astype(np.float32),
        "label": np.array([0, 1, 2, 1], np.int32),
    }
    for _ in range(2):  # the first update has rate 0
        state, metrics = step(state, batch)
    assert set(metrics) == {"loss", "simple", "vlb", "grad_norm"}
    assert all(np.isfinite(value) for value in metrics.values())
    dtypes = {leaf.dtype.name for leaf in jax.tree.leaves((state.params, state.ema, metrics))}
    assert dtypes == {"float32"}
    changed = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), state.params, before)
    assert all(jax.tree.leaves(changed))
    assert jax.tree.all(jax.tree.map(lambda leaf: bool(jnp.all(jnp.isfinite(leaf))), state.params))
