"""The whole variational bound on normal data, where its terms and the likelihood are known."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import ddpm_jax as dj
from tests.evaluation.normal import (
    NETWORKS,
    chain,
    epsilon,
    epsilon_and_variance,
    keys_of,
    params_of,
    pixels,
)

STD = 0.3
SHAPE = (61, 67, 1)  # 4,087 pixels, odd sides


def gaussian_kl(mean_gap: np.ndarray, var: np.ndarray, other: np.ndarray) -> np.ndarray:
    """KL of normals in nats, where `mean_gap` is the expected squared distance of the means."""
    return 0.5 * ((var + mean_gap) / other - 1 - np.log(var / other))


def expected_terms(scheduler: Any, x0: np.ndarray, large: bool) -> np.ndarray:
    """E L_t in bits per dimension over the noise of x_t, t > 0, from moments: x0_hat = k x_t."""
    bar = scheduler.noise_schedule.alpha_bar
    before = np.append(1.0, bar[:-1])
    beta = 1 - bar / before
    k = np.sqrt(bar) * STD**2 / (bar * STD**2 + 1 - bar)
    square = np.mean(np.float64(x0) ** 2)
    error = (1 - k * np.sqrt(bar)) ** 2 * square + k**2 * (1 - bar)  # E (x0 - x0_hat)^2
    weight = np.sqrt(before) * beta / (1 - bar)  # of x0 in the posterior's mean, eq. 7
    small = (1 - before) / (1 - bar) * beta
    with np.errstate(divide="ignore", invalid="ignore"):
        nats = gaussian_kl(weight**2 * error, small, beta if large else small)
    return nats / math.log(2)


@pytest.mark.parametrize(
    ("kind", "variance_type"),
    [("epsilon", "fixed_small"), ("v_prediction", "fixed_large"), ("sample", "fixed_small")],
)
def test_terms_in_closed_form(kind: Any, variance_type: Any) -> None:
    scheduler = chain(prediction_type=kind, variance_type=variance_type)
    x0 = pixels(0, (3, *SHAPE), STD)
    call = (NETWORKS[kind], params_of(scheduler, STD), scheduler, x0, keys_of(3))
    bound = dj.variational_bound(*call, clip_denoised=False)
    assert np.asarray(bound.timesteps[0]).tolist() == list(range(50))
    for image, terms, prior in zip(x0, bound.terms, bound.prior, strict=True):
        expected = expected_terms(scheduler, image, variance_type == "fixed_large")[1:]
        # Squares of normal numbers have a relative spread of sqrt(2); 5 standard errors.
        np.testing.assert_allclose(terms[1:], expected, rtol=5 * math.sqrt(2 / image.size))
        bar = scheduler.noise_schedule.alpha_bar[-1]
        gap = bar * np.mean(np.float64(image) ** 2)
        end = gaussian_kl(gap, 1 - bar, np.float64(1)) / math.log(2)
        assert float(prior) == pytest.approx(end, rel=1e-4)
    np.testing.assert_allclose(bound.total, bound.prior + bound.terms.sum(1), rtol=1e-6)


def test_the_bound_is_the_likelihood_of_an_exact_reverse_process() -> None:
    """With the true variance p is the process reversed: the bound is -log2 p of the bins."""
    scheduler = chain(variance_type="learned")
    x0 = pixels(1, (3, *SHAPE), STD)
    params = params_of(scheduler, STD)
    bound = dj.variational_bound(
        epsilon_and_variance, params, scheduler, x0, keys_of(3), clip_denoised=False
    )
    bins = stats.norm(0, STD)
    inside = np.abs(x0) < 0.999
    mass = bins.cdf(np.float64(x0) + 1 / 255) - bins.cdf(np.float64(x0) - 1 / 255)
    truth = -np.log2(np.where(inside, mass, bins.sf(1 - 1 / 255))).mean((1, 2, 3))
    # Two images' difference comes from the noise of x_t alone: measured 0.02 of 5.3 bits/dim.
    np.testing.assert_allclose(bound.total, truth, rtol=0, atol=0.05)
    assert abs(float(np.mean(bound.total - truth))) < 0.02


def test_clipping_is_of_the_predicted_x0() -> None:
    """A network that predicts x0 = 3 everywhere is read as one that predicts 1."""
    scheduler = chain(prediction_type="sample")
    x0 = pixels(2, (2, 5, 7, 3), STD)

    def three(params: Any, x: jax.Array, timestep: jax.Array) -> jax.Array:
        return jnp.full_like(x, params)

    found = [
        dj.variational_bound(three, jnp.float32(p), scheduler, x0, keys_of(2), clip_denoised=clip)
        for p, clip in ((3.0, True), (1.0, False), (3.0, False))
    ]
    np.testing.assert_allclose(found[0].terms, found[1].terms, rtol=1e-5)
    np.testing.assert_allclose(found[0].mse[:, 7], np.square(1 - x0).mean((1, 2, 3)), rtol=1e-5)
    assert np.all(found[2].total > found[0].total + 1)


def test_an_image_does_not_depend_on_its_batch(count_compilations: Any) -> None:
    scheduler = chain(10)
    x0, keys = pixels(3, (3, 5, 7, 1), STD), keys_of(3)
    params = params_of(scheduler, STD)
    whole = dj.variational_bound(epsilon, params, scheduler, x0, keys)
    some = dj.variational_bound(epsilon, params, scheduler, x0, keys, num_timesteps=4)
    same = np.take_along_axis(np.asarray(whole.terms), np.asarray(some.timesteps), axis=1)
    np.testing.assert_allclose(some.terms, same, rtol=1e-4, atol=1e-6)
    for i in range(3):
        one = slice(i, i + 1)
        few = dj.variational_bound(epsilon, params, scheduler, x0[one], keys[one], num_timesteps=4)
        assert np.array_equal(few.timesteps[0], some.timesteps[i])
        np.testing.assert_allclose(few.terms[0], some.terms[i], rtol=1e-5, atol=1e-7)
    others, other_keys = pixels(4, x0.shape, STD), keys_of(3, 1)
    other_params = params_of(scheduler, 0.5)
    with count_compilations() as compiled:
        dj.variational_bound(epsilon, other_params, scheduler, others, other_keys)
        dj.variational_bound(epsilon, other_params, chain(10), x0, other_keys, num_timesteps=4)
    assert compiled.count == 0


def test_the_estimate_is_unbiased() -> None:
    """Each timestep's share of draws, times its weight, is 1; the terms are those of the whole."""
    scheduler, count = chain(10), 3000
    x0 = np.broadcast_to(pixels(5, (1, 1, 2, 1), STD), (count, 1, 2, 1))
    call = (epsilon, params_of(scheduler, STD), scheduler, x0, keys_of(count))
    whole = dj.variational_bound(*call)
    some = dj.variational_bound(*call, num_timesteps=4)
    (weights,) = np.unique(np.asarray(some.weights), axis=0)
    assert weights.sum() == 10
    assert weights[0] == 1  # the decoder's L_0 is in every sum
    # The others are even in log(sigma / alpha), to a timestep.
    levels = np.log(scheduler.noise_schedule.noise_ratio)
    widths = np.diff(levels[np.cumsum(weights).astype(int) - 1])
    assert np.all(np.abs(widths - widths.mean()) < np.diff(levels).max())
    same = np.take_along_axis(np.asarray(whole.terms), np.asarray(some.timesteps), axis=1)
    np.testing.assert_allclose(some.terms, same, rtol=1e-4, atol=1e-6)
    shares = np.zeros(10)
    np.add.at(shares, np.asarray(some.timesteps).ravel(), np.asarray(some.weights).ravel())
    # A timestep's draws are weighted by 1 / its chance: 4 standard errors.
    assert np.abs(shares / count - 1).max() < 4 * math.sqrt((weights.max() - 1) / count)
    gap = np.asarray(some.total - whole.total, np.float64)
    assert abs(gap.mean()) < 4 * gap.std() / math.sqrt(count)


@pytest.mark.usefixtures("as_users_run")
def test_what_is_refused() -> None:
    scheduler, x0, keys = chain(10), pixels(6, (2, 4, 4, 1), STD), keys_of(2)
    params = params_of(scheduler, STD)

    def refused(error: str, *call: Any, **options: Any) -> None:
        with pytest.raises(ValueError, match=error):
            dj.variational_bound(*call, **options)

    refused("DDPMScheduler, got DDIMScheduler", epsilon, params, dj.DDIMScheduler(), x0, keys)
    refused(r"16 of 32 numbers are not, such as 0.5", epsilon, params, scheduler,
            np.concatenate([x0[:1], np.full_like(x0[:1], 0.5)]), keys)  # fmt: skip
    refused("2 images need 2 keys", epsilon, params, scheduler, x0, keys_of(3))
    refused("num_timesteps must be a whole number in 1..10, got 11",
            epsilon, params, scheduler, x0, keys, num_timesteps=11)  # fmt: skip
    learned = chain(10, variance_type="learned_range")
    refused("need an output of 2 channels", epsilon, params, learned, x0, keys)
    with pytest.raises(TypeError, match="pass its method denoise"):
        dj.variational_bound(dj.UNet2DModel(), params, scheduler, x0, keys)
