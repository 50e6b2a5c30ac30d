"""The variational bound against its definition: densities, integrated numerically in float64."""

import itertools
import math
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import ddpm_jax as dj
from ddpm_jax._typing import PredictionType
from ddpm_jax.likelihood import (
    bound_terms,
    discretised_log_likelihood,
    normal_kl,
    posterior,
)

TYPES = get_args(PredictionType)

# float32 arithmetic on terms of order 1 to 100.
ROUNDING = 2e-5

LEVELS = (np.arange(256) / 127.5 - 1).astype(np.float32)
"""The 256 levels of an image in [-1, 1]."""


# Equation (3): the divergence of two Gaussians.


def integrated_kl(mean: Any, std: Any, other_mean: Any, other_std: Any) -> float:
    """The integral of q log (q / p), by the trapezoidal rule over 12 standard deviations."""
    x = np.linspace(mean - 12 * std, mean + 12 * std, 20_001)
    q, p = stats.norm(mean, std), stats.norm(other_mean, other_std)
    return float(np.trapezoid(q.pdf(x) * (q.logpdf(x) - p.logpdf(x)), x))


@pytest.mark.parametrize(
    ("mean", "std", "other_mean", "other_std"),
    [(0, 1, 0, 1), (0, 1, 2, 1), (0, 1, 0, 3), (0.3, 0.01, 0.31, 0.02), (-1, 2, 4, 0.5)],
)
def test_kl_is_the_integral(mean: float, std: float, other_mean: float, other_std: float) -> None:
    numbers = (mean, 2 * math.log(std), other_mean, 2 * math.log(other_std))
    found = normal_kl(*map(jnp.float32, numbers))
    expected = integrated_kl(mean, std, other_mean, other_std)
    assert float(found) == pytest.approx(expected, rel=ROUNDING, abs=1e-6)


def test_kl_close_to_zero_is_accurate() -> None:
    """For variances that differ by 1e-4 it is 2.5e-9. The error of 1 + 1e-4 - 1 is larger."""
    found = normal_kl(*map(jnp.float32, (0.0, 1e-4, 0.0, 0.0)))
    assert float(found) == pytest.approx(0.25e-8, rel=1e-2)


# Equation (2): the likelihood of a level.


def log_mass(x0: float, mean: float, std: float) -> float:
    """By scipy, in float64, each on the side of the mean where the tail is small."""
    low = -math.inf if x0 < -0.999 else x0 - 1 / 255
    high = math.inf if x0 > 0.999 else x0 + 1 / 255
    norm = stats.norm(mean, std)
    tail, a, b = (norm.logsf, low, high) if x0 > mean else (norm.logcdf, high, low)
    return float(tail(a) + np.log(-np.expm1(tail(b) - tail(a))))


likelihood = jax.jit(discretised_log_likelihood)


@pytest.mark.parametrize("std", [0.003, 0.05, 1.0])
@pytest.mark.parametrize("mean", [-1.2, 0.0, 0.4])
def test_likelihood_is_the_mass_of_a_bin(mean: float, std: float) -> None:
    found = likelihood(LEVELS, jnp.full(256, mean), jnp.full(256, math.log(std)))
    expected = [log_mass(float(x0), mean, std) for x0 in LEVELS]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert np.exp(np.float64(found)).sum() == pytest.approx(1, abs=1e-5)


def test_likelihood_far_from_the_mean() -> None:
    """Thirty to thirty million standard deviations: the value, and a slope toward the mean."""
    cases = list(itertools.product((-1.0, 0.2, 1.0), (3e1, -3e3, 3e5), (0.01, 1.0)))
    x0, mean, std = (np.array(column, np.float32) for column in zip(*cases, strict=True))
    slope = jax.jit(jax.grad(lambda *args: discretised_log_likelihood(*args).sum(), argnums=1))
    values, slopes = likelihood(x0, mean, np.log(std)), slope(x0, mean, np.log(std))
    for case, value, slope in zip(cases, values, slopes, strict=True):
        a, m, s = (float(np.float32(number)) for number in case)
        h = 1e-3 * abs(m)  # almost a parabola
        rise = (log_mass(a, m + h, s) - log_mass(a, m - h, s)) / (2 * h)
        assert float(value) == pytest.approx(log_mass(a, m, s), rel=1e-5), case
        assert float(slope) == pytest.approx(rise, rel=2e-3, abs=1e-30), case


# Equation (1), over a process of twenty timesteps.

STEPS = 20
BETAS = np.linspace(0.01, 0.3, STEPS)
ALPHA_BAR = np.cumprod(1 - BETAS)


def ddpm(**fields: Any) -> dj.DDPMScheduler:
    return dj.DDPMScheduler(num_train_timesteps=STEPS, trained_betas=BETAS.tolist(), **fields)


def bayes(t: int, x: float, x0: float) -> tuple[float, float]:
    """Mean and std of q(x_{t-1} | x_t, x0), t > 0, from q(x_t | x_{t-1}) q(x_{t-1} | x0)."""
    std = math.sqrt(1 - ALPHA_BAR[t - 1])
    prior_mean = math.sqrt(ALPHA_BAR[t - 1]) * x0
    before = np.linspace(prior_mean - 14 * std, prior_mean + 14 * std, 40_001)
    density = stats.norm.pdf(before, prior_mean, std)
    density *= stats.norm.pdf(x, math.sqrt(1 - BETAS[t]) * before, math.sqrt(BETAS[t]))
    density /= density.sum()
    mean = float((density * before).sum())
    return mean, math.sqrt(float((density * (before - mean) ** 2).sum()))


def guess(kind: str, t: int, x: float, output: float) -> float:
    """The x0 of an output."""
    alpha, sigma = math.sqrt(ALPHA_BAR[t]), math.sqrt(1 - ALPHA_BAR[t])
    return {
        "sample": output,
        "epsilon": (x - sigma * output) / alpha,
        "v_prediction": alpha * x - sigma * output,
    }[kind]


def std_of(variance_type: str, t: int, value: float) -> float:
    """The variance of p as in Nichol and Dhariwal: at t = 0 the posterior's is that of t = 1."""
    small = bayes(max(t, 1), 0.1, 0.2)[1] ** 2
    if variance_type == "fixed_small":
        return math.sqrt(small)
    if variance_type == "fixed_large":
        return math.sqrt(BETAS[t] if t > 0 else small)
    if variance_type == "learned":
        return math.exp(value / 2)
    share = (value + 1) / 2
    return math.exp((share * math.log(BETAS[t]) + (1 - share) * math.log(small)) / 2)


@pytest.mark.parametrize("prediction_type", TYPES)
@pytest.mark.parametrize(
    "variance_type", ["fixed_small", "fixed_large_log", "learned", "learned_range"]
)
def test_bound_at_every_timestep(prediction_type: Any, variance_type: Any) -> None:
    """Two pixels per timestep: a KL by Bayes and integration, at t = 0 the mass of a bin."""
    rng = np.random.default_rng(0)
    t = np.arange(STEPS)
    shape = (STEPS, 1, 2, 1)
    x0 = rng.choice(LEVELS, shape)
    x, output, values = (rng.standard_normal(shape).astype(np.float32) for _ in range(3))
    scheduler = ddpm(prediction_type=prediction_type, variance_type=variance_type)
    learned = variance_type.startswith("learned")
    found = bound_terms(
        posterior(scheduler),
        *map(jnp.asarray, (t, x0, x, output)),
        jnp.asarray(values) if learned else None,
    )
    expected = []
    for i in t:
        nats = []
        for pixel in range(2):
            a, b, c, d = (float(field[i, 0, pixel, 0]) for field in (x0, x, output, values))
            mean = bayes(max(i, 1), b, guess(prediction_type, i, b, c))[0]
            std = std_of(variance_type.removesuffix("_log"), i, d)
            if i == 0:  # q(x_0 | x_1) for a predicted x0 is that x0
                nats.append(-log_mass(a, guess(prediction_type, 0, b, c), std))
            else:
                nats.append(integrated_kl(*bayes(i, b, a), mean, std))
        expected.append(np.mean(nats) / math.log(2))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("prediction_type", TYPES)
def test_the_true_x0_has_no_divergence(prediction_type: Any) -> None:
    """fixed_small is the true variance, so with the true x0 as the prediction p is q for t > 0."""
    rng = np.random.default_rng(1)
    scheduler = dj.DDPMScheduler(prediction_type=prediction_type)
    t = np.array([1, 2, 5, 20, 100, 500, 998, 999])
    alpha, sigma = (
        getattr(scheduler.noise_schedule, name)[t][:, None, None, None]
        for name in ("alpha", "sigma")
    )
    x0 = rng.uniform(-1, 1, (len(t), 4, 4, 2))
    noise = rng.standard_normal(x0.shape)
    x = alpha * x0 + sigma * noise
    output = {"sample": x0, "epsilon": noise, "v_prediction": alpha * noise - sigma * x0}
    arrays = [jnp.asarray(a, jnp.float32) for a in (x0, x, output[prediction_type])]
    found = bound_terms(posterior(scheduler), jnp.asarray(t), *arrays, None)
    # The gap of two float32 means, squared, over a variance of at least 5e-5.
    assert np.all(np.asarray(found) >= 0)
    assert np.max(found) < 1e-8


# The whole bound, where the likelihood is known.


def bound_and_truth(variance_type: Any, log_var: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """-log p(x_0) of 18 levels in nats, for the best network that is linear in x.

    The data are N(0, 1/4), the process has 100 timesteps, and p's log variances are given. The
    chain is Gaussian then, its end is N(0, variance) cut into bins, and so the truth is exact.
    """
    alpha, sigma = np.sqrt(CHAIN_ALPHA_BAR), np.sqrt(1 - CHAIN_ALPHA_BAR)
    slope = sigma / (CHAIN_ALPHA_BAR * SPREAD + sigma**2)  # E[eps | x] = slope x
    # Ho et al. 2020, Algorithm 2: x <- (x - beta / sigma eps) / sqrt(1 - beta) + std z
    shrink = (1 - CHAIN_BETAS / sigma * slope) / np.sqrt(1 - CHAIN_BETAS)
    variance = 1.0
    for t in reversed(range(CHAIN)):
        variance = shrink[t] ** 2 * variance + math.exp(log_var[t])
    truth = [-log_mass(float(x0), 0.0, math.sqrt(variance)) for x0 in LEVELS[::15]]

    nodes, weights = np.polynomial.hermite_e.hermegauss(24)  # an expectation over the noise in x
    t, x0, z = (
        grid.ravel() for grid in np.meshgrid(range(CHAIN), LEVELS[::15], nodes, indexing="ij")
    )
    x = alpha[t] * x0 + sigma[t] * z
    arrays = [pixels(a) for a in (x0, x, slope[t] * x, log_var[t])]
    of = posterior(chain(variance_type))
    terms = jax.jit(bound_terms, static_argnums=0)(
        of, t, *arrays[:3], arrays[3] if variance_type == "learned" else None
    )
    terms = np.asarray(terms, np.float64).reshape(CHAIN, -1, len(nodes))
    end = [integrated_kl(alpha[-1] * x0, sigma[-1], 0.0, 1.0) for x0 in LEVELS[::15]]
    return (terms @ (weights / weights.sum())).sum(0) * math.log(2) + end, np.array(truth)


SPREAD, CHAIN = 0.25, 100
CHAIN_BETAS = np.linspace(1e-3, 0.1, CHAIN)
CHAIN_ALPHA_BAR = np.cumprod(1 - CHAIN_BETAS)


def chain(variance_type: Any) -> dj.DDPMScheduler:
    betas = CHAIN_BETAS.tolist()
    return dj.DDPMScheduler(
        num_train_timesteps=CHAIN, trained_betas=betas, variance_type=variance_type
    )


def pixels(values: np.ndarray) -> jax.Array:
    """Images of one pixel."""
    return jnp.asarray(values, jnp.float32)[:, None, None, None]


def test_the_sum_bounds_the_likelihood() -> None:
    """fixed_small is too narrow for data with variance, so the bound is loose at every level."""
    small = CHAIN_BETAS[1:] * (1 - CHAIN_ALPHA_BAR[:-1]) / (1 - CHAIN_ALPHA_BAR[1:])
    bound, truth = bound_and_truth("fixed_small", np.log(np.append(small[0], small)))
    assert np.all(bound > truth + 0.1)


def test_the_sum_is_the_likelihood_where_the_reverse_process_is_exact() -> None:
    """The bound is tight with the variance of x_{t-1} given x_t, as all variables are Gaussian."""
    before = np.append(1.0, CHAIN_ALPHA_BAR[:-1])
    before, now = (bar * SPREAD + 1 - bar for bar in (before, CHAIN_ALPHA_BAR))
    bound, truth = bound_and_truth("learned", np.log(CHAIN_BETAS * before / now))
    # Most mass of the first and the last level lies beyond them, so they are left out. Measured
    # between them: 1e-5, the width of the bins.
    assert np.all(bound[[0, -1]] > truth[[0, -1]])
    np.testing.assert_allclose(bound[1:-1], truth[1:-1], rtol=0, atol=1e-4)


def test_one_timestep_is_refused() -> None:
    with pytest.raises(ValueError, match="num_train_timesteps of at least 2"):
        posterior(dj.DDPMScheduler(num_train_timesteps=1))


@pytest.mark.parametrize("variance_type", ["learned_range", "fixed_large"])
@pytest.mark.parametrize("prediction_type", TYPES)
def test_the_reverse_process_is_the_table_of_all_timesteps(
    prediction_type: Any, variance_type: Any
) -> None:
    """What is trained is what is sampled: the mean and the variances of every row."""
    scheduler = dj.DDPMScheduler(
        prediction_type=prediction_type,
        variance_type=variance_type,
        clip_sample=False,
        beta_schedule="squaredcos_cap_v2",
        num_train_timesteps=50,
    )
    of, table = posterior(scheduler), scheduler.table(50, dtype=np.float64)
    np.testing.assert_allclose(of.mean[::-1], table.mix[:, 0], rtol=1e-12, atol=1e-12)
    if variance_type == "learned_range":
        assert table.log_var is not None
        np.testing.assert_allclose(of.log_var[1:][::-1], table.log_var[:-1], rtol=1e-12)
    else:
        assert table.noise_scale is not None
        std = np.exp(of.log_var[1:, 0] / 2)
        np.testing.assert_allclose(std[::-1], table.noise_scale[:-1], rtol=1e-12)
