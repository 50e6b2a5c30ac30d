"""Log likelihoods by the probability flow on normal data, where they are known."""

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array
from scipy import stats

import ddpm_jax as dj
from ddpm_jax import extras
from ddpm_jax.evaluation.continuous import continuous
from ddpm_jax.schedulers import SCHEDULERS
from tests.evaluation.normal import NETWORKS, epsilon, keys_of, params_of, pixels

pytest.importorskip("diffrax")

STD = 0.3


def log_density(x0: np.ndarray, variances: Any, low: float, high: float) -> np.ndarray:
    """log p(x) of normal numbers of these variances, with the noise of the lowest sigma / alpha.

    The flow's end is taken for N(0, I), though it is a little narrower: the density is that of
    what the flow makes of N(0, I), which is normal too.
    """
    end = (variances + high**2) / (1 + high**2)
    std = np.sqrt((variances + low**2) / end)
    return stats.norm(0, std).logpdf(np.float64(x0)).sum((1, 2, 3))


def drawn(shape: tuple[int, ...], std: float = STD, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, std, shape).astype(np.float32)


def bits(log_likelihood: Any, size: int) -> Any:
    return -log_likelihood / math.log(2) / size + math.log2(127.5)


# In closed form.

VP = [
    dj.DDPMScheduler(),
    dj.DDPMScheduler(prediction_type="v_prediction", rescale_betas_zero_snr=True),
    dj.EulerDiscreteScheduler(prediction_type="sample"),  # sigmas: the same network
    dj.DDIMScheduler(beta_schedule="squaredcos_cap_v2"),
]


def ratio_and_params(scheduler: Any) -> tuple[np.ndarray, dict[str, Array]]:
    """sigma / alpha of each timestep, finite without a signal at the end, and params with them."""
    alpha_bar = np.maximum(scheduler.noise_schedule.alpha_bar, 2.0**-24)
    ratio = np.sqrt((1 - alpha_bar) / alpha_bar)
    logs = jnp.asarray(np.log(ratio), jnp.float32)
    return ratio, {"log_ratio": logs, "std": jnp.float32(STD)}


def assert_eps(scheduler: Any, network: Any, params: Any, low: float, high: float) -> None:
    """E[eps | z] of data N(0, STD^2) is b z / (a^2 STD^2 + b^2) at every level."""
    read, z = continuous(network, scheduler), drawn((2, 3, 5, 1), 1.0)
    np.testing.assert_allclose((read.low, read.high), np.log((low, high)), rtol=1e-6)
    for level in np.linspace(read.low, read.high, 5):
        a2 = 1 / (1 + np.exp(2 * level))
        expected = np.sqrt(1 - a2) * z / (a2 * STD**2 + 1 - a2)
        found = read.eps(params, jnp.asarray(z), jnp.float32(level))
        # EDM's network divides a difference by sigma, here 0.002: 1e-7 / 0.002 for each unit of z.
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=3e-4)


@pytest.mark.parametrize("scheduler", VP, ids=lambda s: f"{s.short_name()}-{s.prediction_type}")
def test_networks_of_betas_at_every_level(scheduler: Any) -> None:
    ratio, params = ratio_and_params(scheduler)
    assert_eps(scheduler, NETWORKS[scheduler.prediction_type], params, ratio[0], ratio[-1])


SLOW = pytest.mark.slow  # fast: the first of each kind, and every network at every level


@pytest.mark.parametrize(
    "scheduler",
    [VP[0], *(pytest.param(one, marks=SLOW) for one in VP[1:])],
    ids=lambda s: f"{s.short_name()}-{s.prediction_type}",
)
def test_schedulers_of_betas(scheduler: Any) -> None:
    """Odd sides, three images. Measured: 1.3e-5 bits/dim; at a tolerance of 1e-5 rounding moves the
    steps, and in one image of twenty 3e-4, with cosine betas or predictions of x0.
    """
    ratio, params = ratio_and_params(scheduler)
    x0 = drawn((3, 5, 7, 1))
    network = NETWORKS[scheduler.prediction_type]
    truth = log_density(x0, STD**2, ratio[0], ratio[-1])
    end = x0 * np.sqrt((STD**2 + ratio[-1] ** 2) / (STD**2 + ratio[0] ** 2) / (1 + ratio[-1] ** 2))
    loose = scheduler.beta_schedule == "squaredcos_cap_v2" or scheduler.prediction_type == "sample"
    for tolerance, most in ((1e-5, 5e-4 if loose else 1e-4), (1e-6, 3e-5)):
        options: Any = {"dequantize": False, "rtol": tolerance, "atol": tolerance}
        found = dj.flow_log_likelihood(network, params, scheduler, x0, keys_of(3), **options)
        np.testing.assert_allclose(found.bits_per_dim, bits(truth, 35), rtol=0, atol=most)
        np.testing.assert_allclose(found.log_likelihood, truth, rtol=0, atol=35 * most)
        np.testing.assert_allclose(found.latents, end, rtol=0, atol=10 * most)
        assert np.asarray(found.num_steps).max() < 30


def preconditioned(params: Any, x: Array, told: Array) -> Array:
    """F of data N(0, STD^2), from its definition (arXiv:2206.00364, eq. 7)."""
    sigma, data = jnp.exp(4 * told), params
    h = jnp.sqrt(sigma**2 + data**2)
    noised = x * h
    x0 = STD**2 / (STD**2 + sigma**2) * noised
    return (x0 - (data / h) ** 2 * noised) / (sigma * data / h)


def score(params: Any, x: Array, sigma: Array) -> Array:
    return -params * x / (STD**2 + sigma**2)


EDM = (dj.EDMEulerScheduler(), preconditioned, 0.5, (0.002, 80.0))
SCORE = (dj.ScoreSdeVeScheduler(), score, 1.0, (0.01, 1348.0))


@pytest.mark.parametrize(
    ("scheduler", "network", "params", "ends"), [EDM, SCORE], ids=["edm", "score"]
)
def test_networks_of_sigmas_at_every_level(
    scheduler: Any, network: Any, params: float, ends: Any
) -> None:
    assert_eps(scheduler, network, jnp.float32(params), *ends)


@pytest.mark.parametrize(
    ("scheduler", "network", "params", "ends"),
    [EDM, pytest.param(*SCORE, marks=SLOW)],
    ids=["edm", "score"],
)
def test_schedulers_of_sigmas(scheduler: Any, network: Any, params: float, ends: Any) -> None:
    x0 = drawn((1, 3, 5, 1))
    call = (network, jnp.float32(params), scheduler, x0, keys_of(1))
    found = dj.flow_log_likelihood(*call, dequantize=False)
    truth = log_density(x0, STD**2, *ends)
    np.testing.assert_allclose(found.bits_per_dim, bits(truth, 15), rtol=0, atol=1e-4)


def test_dequantized_pixels_cost_their_bins() -> None:
    """Uniform noise costs next to nothing where the density is smooth over a level."""
    scheduler, x0 = dj.DDPMScheduler(), pixels(0, (3, 33, 35, 1), STD)
    params = params_of(scheduler, STD)
    found = dj.flow_log_likelihood(epsilon, params, scheduler, x0, keys_of(3))
    low = scheduler.noise_schedule.noise_ratio[0]
    normal = stats.norm(0, math.hypot(STD, low))
    mass = normal.cdf(np.float64(x0) + 1 / 255) - normal.cdf(np.float64(x0) - 1 / 255)
    # x u / std^2 has a standard deviation of 0.0075 per pixel: 3e-4 over 1,155 of them.
    np.testing.assert_allclose(found.bits_per_dim, -np.log2(mass).mean((1, 2, 3)), atol=2e-3)


# Hutchinson's trace, where pixels depend on each other.

SIDE = 3
ROTATION = np.linalg.qr(np.random.default_rng(7).normal(size=(9, 9)))[0]
VARIANCES = np.geomspace(0.01, 1.0, 9)
SCHEDULER = dj.DDPMScheduler()


def correlated(params: Any, x: Array, timestep: Array) -> Array:
    """E[eps | x] of data N(0, R diag(VARIANCES) R^T)."""
    ratio = jnp.exp(jnp.interp(timestep, jnp.arange(1000.0), params["log_ratio"]))
    alpha = 1 / jnp.sqrt(1 + ratio**2)
    turned = x.reshape(-1, 9) @ params["rotation"]
    turned = turned * (ratio * alpha / (alpha**2 * params["variances"] + (ratio * alpha) ** 2))
    return (turned @ params["rotation"].T).reshape(x.shape)


def correlated_params() -> dict[str, Array]:
    numbers = {"rotation": ROTATION, "variances": VARIANCES.reshape(1, 9)}
    numbers |= {"log_ratio": np.log(SCHEDULER.noise_schedule.noise_ratio)}
    return {name: jnp.asarray(number, jnp.float32) for name, number in numbers.items()}


def test_an_exact_trace_of_dependent_pixels() -> None:
    turned = drawn((3, 3, 3, 1), 1.0) * np.sqrt(VARIANCES).reshape(3, 3, 1)
    x0 = (turned.reshape(3, 9) @ ROTATION.T).reshape(3, 3, 3, 1).astype(np.float32)
    call = (correlated, correlated_params(), SCHEDULER, x0, keys_of(3))
    found = dj.flow_log_likelihood(*call, dequantize=False, probe="exact")
    ends = SCHEDULER.noise_schedule.noise_ratio[[0, -1]]
    truth = log_density(turned, VARIANCES.reshape(3, 3, 1), *ends)
    np.testing.assert_allclose(found.bits_per_dim, bits(truth, 9), rtol=0, atol=2e-4)


@pytest.mark.parametrize(
    ("probe", "num_probes"), [("rademacher", 3), pytest.param("gaussian", 1, marks=SLOW)]
)
def test_the_estimate_is_unbiased_and_its_spread_is_known(probe: Any, num_probes: int) -> None:
    """v^T M v has variance 2 |M|^2 for normal v, and 2 (|M|^2 - |diag M|^2) for signs.

    M is the integral of the derivative along the path, which is the same for all images here.
    """
    count = 400
    x0 = np.zeros((count, 3, 3, 1), np.float32)
    call = (correlated, correlated_params(), SCHEDULER, x0, keys_of(count))
    found = dj.flow_log_likelihood(*call, dequantize=False, probe=probe, num_probes=num_probes)
    low, high = SCHEDULER.noise_schedule.noise_ratio[[0, -1]]
    a, b = (1 / np.hypot(1, s) for s in (low, high))
    ends = [VARIANCES * scale**2 + 1 - scale**2 for scale in (a, b)]
    values = 0.5 * np.log(ends[1] / ends[0]) + np.log(a / b)
    matrix = ROTATION * values @ ROTATION.T
    square = np.sum(matrix**2) - (probe == "rademacher") * np.sum(np.diag(matrix) ** 2)
    expected = math.sqrt(2 * square / num_probes)
    truth = log_density(x0[:1], VARIANCES.reshape(3, 3, 1), low, high)[0]
    gap = np.asarray(found.log_likelihood, np.float64) - truth
    assert abs(gap.mean()) < 4 * expected / math.sqrt(count)
    # The relative spread of a standard deviation of 400 is 3.5 % for normal numbers, and these
    # have heavier tails.
    assert gap.std() == pytest.approx(expected, rel=0.2)


# Calls.


def test_an_image_does_not_depend_on_its_batch(count_compilations: Callable[[], Any]) -> None:
    x0, keys, params = pixels(1, (3, 5, 7, 1), STD), keys_of(3), params_of(SCHEDULER, STD)
    x0[1] = 1 / 255  # close to the fixed point at 0: it takes fewer steps
    same: Any = {"dequantize": False}  # the program of the first case above
    together = dj.flow_log_likelihood(epsilon, params, SCHEDULER, x0, keys, **same)
    assert len(set(np.asarray(together.num_steps).tolist())) > 1
    for i in range(3):
        one = slice(i, i + 1)
        alone = dj.flow_log_likelihood(epsilon, params, SCHEDULER, x0[one], keys[one], **same)
        np.testing.assert_allclose(alone.bits_per_dim[0], together.bits_per_dim[i], atol=2e-5)
        assert alone.num_steps[0] == together.num_steps[i]
    others = (pixels(2, x0.shape, STD), keys_of(3, 1))
    other_params, same_scheduler = params_of(SCHEDULER, 0.5), dj.DDPMScheduler()
    with count_compilations() as compiled:
        dj.flow_log_likelihood(epsilon, other_params, same_scheduler, *others, rtol=1e-4, **same)
    assert compiled.count == 0


def test_a_path_that_does_not_end_is_an_error() -> None:
    x0, params = drawn((3, 5, 7, 1)), params_of(SCHEDULER, STD)
    call = (SCHEDULER, x0, keys_of(3))
    few: Any = {"dequantize": False, "max_steps": 12}
    coarse = {"rtol": 0.01, "atol": 0.01}
    dj.flow_log_likelihood(epsilon, params, *call, **few, **coarse)  # twelve suffice
    with pytest.raises(RuntimeError, match=r"3 of 3 images did not reach its end in 12 steps"):
        dj.flow_log_likelihood(epsilon, params, *call, **few)
    broken = {**params, "log_ratio": params["log_ratio"].at[900:].set(jnp.nan)}
    with pytest.raises(RuntimeError, match="or is not finite: images 0, 1, 2"):
        dj.flow_log_likelihood(epsilon, broken, *call, **few, **coarse)


REFUSED = {
    "FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler", "LCMScheduler",
    "TCDScheduler", "CMStochasticIterativeScheduler", "KarrasVeScheduler", "IPNDMScheduler",
}  # fmt: skip


@pytest.mark.parametrize("cls", SCHEDULERS, ids=lambda cls: cls.short_name())
def test_a_scheduler_of_another_process_is_refused_by_name(cls: Any) -> None:
    if cls.__name__ in REFUSED:
        with pytest.raises(ValueError, match=cls.__name__):
            continuous(epsilon, cls())
        return
    assert continuous(epsilon, cls()).low < 0
    if hasattr(cls, "use_flow_sigmas"):
        with pytest.raises(ValueError, match=f"{cls.__name__} with use_flow_sigmas"):
            continuous(epsilon, cls(use_flow_sigmas=True, prediction_type="flow_prediction"))


@pytest.mark.usefixtures("as_users_run")
def test_bad_options_are_refused_together() -> None:
    x0, params = drawn((1, 70, 70, 1)), params_of(SCHEDULER, STD)
    call = (epsilon, params, SCHEDULER, x0, keys_of(1))
    with pytest.raises(ValueError, match=r"at most 4096 .* no num_probes, got 2; rtol must lie"):
        dj.flow_log_likelihood(*call, dequantize=False, probe="exact", num_probes=2, rtol=0.0)
    with pytest.raises(ValueError, match=r"p / 127\.5 - 1"):
        dj.flow_log_likelihood(*call)

    def for_each(params: Any, x: Array, timestep: Array) -> Array:
        return x + params.reshape(-1, 1, 1, 1)

    with pytest.raises(ValueError, match="what is one for each image as of_each"):
        dj.flow_log_likelihood(
            for_each, jnp.zeros(3), SCHEDULER, drawn((3, 4, 4, 1)), keys_of(3), dequantize=False
        )


def test_without_diffrax_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    call = (epsilon, params_of(SCHEDULER, STD), SCHEDULER, drawn((1, 4, 4, 1)), keys_of(1))
    with pytest.raises(ImportError, match=r"diffrax: pip install 'ddpm-jax\[likelihood\]'"):
        dj.flow_log_likelihood(*call)
