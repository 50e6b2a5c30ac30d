"""Noise schedules against their formulas, one number at a time, and against published numbers."""

import math

import numpy as np
import pytest

from ddpm_jax.tables.schedules import noise_schedule
from tests.schedulers import reference

# Cumulative products of a thousand float64 factors.
PRODUCT = 1e-12


@pytest.mark.parametrize(
    "kind", ["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid", "laplace"]
)
@pytest.mark.parametrize("length", [1000, 37])
def test_alpha_bar(kind: str, length: int) -> None:
    schedule = noise_schedule(kind, num_train_timesteps=length, beta_start=0.00085, beta_end=0.012)
    expected = reference.alpha_bar(reference.betas(kind, length, 0.00085, 0.012))
    # the last beta of a cosine is 0.999: one minus it holds three digits fewer
    np.testing.assert_allclose(schedule.alpha_bar, expected, rtol=PRODUCT)
    assert schedule.alpha_bar.dtype == np.float64


def test_cosine_is_its_curve() -> None:
    """Away from the cap the product telescopes to f(t + 1) / f(0) (arXiv 2102.09672, eq. 17)."""

    def curve(t: float) -> float:
        return math.cos((t / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2

    schedule = noise_schedule("squaredcos_cap_v2")
    for t in (0, 1, 499, 900, 998):
        assert schedule.alpha_bar[t] == pytest.approx(curve(t + 1) / curve(0), rel=1e-11)
    # the last step is capped: beta = 0.999
    assert schedule.alpha_bar[999] / schedule.alpha_bar[998] == pytest.approx(1e-3, rel=1e-12)


def test_published_numbers() -> None:
    """Ho et al.: L_T of about 1e-5 bits/dim rests on alpha_bar_T = 4.0e-5; Stable Diffusion's
    largest sigma is 14.6146."""
    assert noise_schedule("linear").alpha_bar[-1] == pytest.approx(4.0358e-5, rel=1e-4)
    latent = noise_schedule("scaled_linear", beta_start=0.00085, beta_end=0.012)
    assert latent.noise_ratio[-1] == pytest.approx(14.6146, rel=1e-5)
    assert latent.noise_ratio[0] == pytest.approx(0.0292, rel=1e-2)


def test_zero_terminal_snr() -> None:
    """arXiv 2305.08891, Algorithm 1: the first alpha stays, the last is exactly 0."""
    plain = noise_schedule("scaled_linear")
    rescaled = noise_schedule("scaled_linear", rescale_betas_zero_snr=True)
    assert rescaled.alpha_bar[-1] == 0
    assert rescaled.alpha_bar[0] == pytest.approx(plain.alpha_bar[0], rel=1e-14)
    np.testing.assert_allclose(
        rescaled.alpha_bar, reference.zero_snr(plain.alpha_bar), rtol=1e-11, atol=1e-18
    )
    # alpha stays an affine image of what it was
    ratio = np.diff(rescaled.alpha) / np.diff(plain.alpha)
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-9)


def test_trained_betas_by_hand() -> None:
    schedule = noise_schedule(num_train_timesteps=3, trained_betas=[0.1, 0.2, 0.5])
    np.testing.assert_allclose(schedule.alpha_bar, [0.9, 0.72, 0.36], rtol=1e-15)
    np.testing.assert_allclose(schedule.noise_ratio[-1], 4 / 3, rtol=1e-15)
