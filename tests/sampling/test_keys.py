"""Keys of the noise: the prior uses fold_in(key, 0), row i uses fold_in(key, i + 1)."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ddpm_jax as dj
from tests.sampling.networks import PARAMS, SHAPE, denoise

KEY = jax.random.key(7)


def bits(x) -> bytes:
    return np.asarray(x).tobytes()


def test_sample_keys_do_not_depend_on_the_batch() -> None:
    keys = dj.sample_keys(KEY, 5)
    assert keys.shape == (5,)
    for i in range(5):
        expected = jax.random.key_data(jax.random.fold_in(KEY, i))
        assert bits(jax.random.key_data(keys[i])) == bits(expected)
    assert bits(jax.random.key_data(dj.sample_keys(KEY, 2))) == bits(jax.random.key_data(keys[:2]))


def test_noise_is_drawn_from_the_documented_keys() -> None:
    keys = dj.sample_keys(KEY, 3)
    for i in (0, 1, 41):
        drawn = dj.noise(keys, i, SHAPE)
        assert drawn.shape == (3, *SHAPE)
        assert drawn.dtype == jnp.float32
        for b in range(3):
            expected = jax.random.normal(jax.random.fold_in(keys[b], i + 1), SHAPE, jnp.float32)
            assert bits(drawn[b]) == bits(expected)


@pytest.mark.parametrize(
    ("scheduler", "steps"),
    [
        (dj.DDPMScheduler(), 1000),
        (dj.DDIMScheduler(), 7),
        (dj.PNDMScheduler(), 10),
        (dj.EulerDiscreteScheduler(), 10),
        (dj.EulerAncestralDiscreteScheduler(timestep_spacing="leading"), 3),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_scheduler_starts_from_the_same_noise(scheduler, steps) -> None:
    keys = dj.sample_keys(KEY, 2)
    table = scheduler.table(steps)
    x_T = dj.prior(table, keys, SHAPE)
    assert x_T.dtype == jnp.float32
    z = [jax.random.normal(jax.random.fold_in(key, 0), SHAPE, jnp.float32) for key in keys]
    np.testing.assert_allclose(x_T, np.stack(z) * np.float32(table.init_scale), rtol=1e-6)


def test_no_draw_is_used_twice() -> None:
    """The prior, all rows and all images have different draws."""
    keys = dj.sample_keys(KEY, 3)
    table = dj.DDPMScheduler().table(10)
    draws = [dj.prior(table, keys, SHAPE), *(dj.noise(keys, i, SHAPE) for i in range(10))]
    seen = [bits(image) for draw in draws for image in draw]
    assert len(set(seen)) == len(seen) == 33


def test_noise_and_rows_inside_a_loop_draw_the_same() -> None:
    """With a network of output 0 a sampler sums its noise: one draw for each row."""
    table = dj.EulerAncestralDiscreteScheduler().table(4)
    keys = dj.sample_keys(KEY, 2)

    def silent(params, x, timestep):
        return jnp.zeros_like(x)

    x_T = dj.prior(table, keys, SHAPE)
    reached = dj.sample(silent, None, table, x_T, keys)
    expected = np.asarray(x_T, np.float64)  # eps = 0 keeps x
    for i, scale in enumerate(table.noise_scale):
        expected = expected + scale * np.asarray(dj.noise(keys, i, SHAPE), np.float64)
    np.testing.assert_allclose(reached, expected, rtol=1e-5, atol=1e-5 * np.abs(x_T).max())


def test_an_image_does_not_depend_on_its_batch() -> None:
    keys = dj.sample_keys(KEY, 3)
    table = dj.DDPMScheduler().table(10)
    x_T = dj.prior(table, keys, SHAPE)
    together = dj.sample(denoise, PARAMS, table, x_T, keys)
    for chosen in ([2], [0]):
        some = keys[np.array(chosen)]
        start = dj.prior(table, some, SHAPE)
        for place, b in enumerate(chosen):
            assert bits(start[place]) == bits(x_T[b])
            assert bits(dj.noise(some, 3, SHAPE)[place]) == bits(dj.noise(keys, 3, SHAPE)[b])
        apart = dj.sample(denoise, PARAMS, table, start, some)
        # the network's rounding: vector and remainder loops of another batch
        np.testing.assert_allclose(apart, together[np.array(chosen)], rtol=0, atol=1e-6)


def test_images_are_independent() -> None:
    """Another image in the batch changes nothing, also with dynamic thresholding."""
    table = dj.DDIMScheduler(thresholding=True, sample_max_value=3.0).table(5)
    x_T = dj.prior(table, dj.sample_keys(KEY, 2), SHAPE)
    louder = x_T.at[1].multiply(50)
    first, second = (dj.sample(denoise, PARAMS, table, x) for x in (x_T, louder))
    assert bits(first[0]) == bits(second[0])
    assert bits(first[1]) != bits(second[1])


def test_legacy_keys_are_accepted_at_the_edges() -> None:
    legacy = jax.random.PRNGKey(7)
    keys, old = dj.sample_keys(KEY, 3), dj.sample_keys(legacy, 3)
    assert bits(jax.random.key_data(keys)) == bits(jax.random.key_data(old))
    raw = jax.random.key_data(keys)
    table = dj.DDPMScheduler().table(3)
    for draw in (lambda k: dj.prior(table, k, SHAPE), lambda k: dj.noise(k, 2, SHAPE)):
        assert bits(draw(raw)) == bits(draw(keys))
    x_T = dj.prior(table, keys, SHAPE)
    typed, untyped = (dj.sample(denoise, PARAMS, table, x_T, k) for k in (keys, raw))
    assert bits(typed) == bits(untyped)


def test_a_deterministic_table_needs_no_keys() -> None:
    table, keys = dj.DDIMScheduler().table(3), dj.sample_keys(KEY, 2)
    x_T = dj.prior(table, keys, SHAPE)
    with_keys = dj.sample(denoise, PARAMS, table, x_T, keys)
    assert bits(dj.sample(denoise, PARAMS, table, x_T)) == bits(with_keys)


def test_draws_are_normal_and_independent_over_rows() -> None:
    """Moments over rows, images and pixels: 12,000 numbers; five standard errors."""
    keys = dj.sample_keys(KEY, 10)
    draws = np.stack([dj.noise(keys, i, SHAPE) for i in range(-1, 49)]).reshape(50, -1)
    count = draws.size
    assert abs(draws.mean()) < 5 / count**0.5
    assert abs(draws.var() - 1) < 5 * (2 / count) ** 0.5
    correlations = np.corrcoef(draws)
    pairs = [abs(correlations[i, j]) for i, j in itertools.combinations(range(50), 2)]
    assert max(pairs) < 5 / draws.shape[1] ** 0.5
