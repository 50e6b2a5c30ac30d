"""Loss weights against the papers' statements, for what the network may be asked for."""

from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ddpm_jax as dj
from ddpm_jax._typing import PredictionType
from ddpm_jax.training import Drawn, Loss, Objective, loss_weights

TYPES = get_args(PredictionType)

# float64 on both sides; 1 - alpha_bar_0 = 1e-4 costs four digits.
EXACT = 1e-11

# Three readings of one float32 image. Near t = 0 eps is (x - alpha x0) / 0.01.
READINGS = 1e-4


def signal_to_noise() -> np.ndarray:
    """The default schedule's, from its betas: alpha_bar / (1 - alpha_bar)."""
    alpha_bar = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    return alpha_bar / (1 - alpha_bar)


def weights(prediction_type: Any, weighting: Any, **numbers: float) -> np.ndarray:
    return loss_weights(dj.noise_schedule(), prediction_type, weighting, **numbers)


def test_uniform() -> None:
    """Ho et al. 2020, eq. 14."""
    for prediction_type in TYPES:
        np.testing.assert_array_equal(weights(prediction_type, "uniform"), np.ones(1000))


@pytest.mark.parametrize("gamma", [1.0, 5.0, 20.0])
def test_min_snr(gamma: float) -> None:
    """Hang et al. 2023, section 3.4: min(snr, gamma) over 1, snr or snr + 1."""
    snr = signal_to_noise()
    least = np.where(snr < gamma, snr, gamma)
    for prediction_type, over in (("sample", 1), ("epsilon", snr), ("v_prediction", snr + 1)):
        found = weights(prediction_type, "min_snr", min_snr_gamma=gamma)
        np.testing.assert_allclose(found, least / over, rtol=EXACT)


@pytest.mark.parametrize(("gamma", "k"), [(0.5, 1.0), (1.0, 1.0), (1.0, 0.3), (0.0, 1.0)])
def test_p2(gamma: float, k: float) -> None:
    """Choi et al. 2022, eq. 8, where the network predicts eps."""
    found = weights("epsilon", "p2", p2_gamma=gamma, p2_k=k)
    np.testing.assert_allclose(found, 1 / (k + signal_to_noise()) ** gamma, rtol=EXACT)


def test_snr() -> None:
    """On x0 alphas_cumprod / (1 - alphas_cumprod), as diffusers' example has; on eps uniform."""
    np.testing.assert_allclose(weights("sample", "snr"), signal_to_noise(), rtol=EXACT)
    np.testing.assert_allclose(weights("epsilon", "snr"), 1, rtol=EXACT)


@pytest.mark.parametrize("weighting", ["snr", "min_snr", "p2"])
def test_one_error_costs_the_same_in_every_reading(weighting: str) -> None:
    """A guess of x0 that is off by 1 is off in eps and v too, by what the forward process says."""
    schedule = dj.noise_schedule()
    alpha, sigma, x = schedule.alpha, schedule.sigma, 0.3
    x0 = np.array([0.2, 1.2])[:, None]  # the truth, and a guess
    eps = (x - alpha * x0) / sigma
    readings = {"sample": x0, "epsilon": eps, "v_prediction": alpha * eps - sigma * x0}
    costs = {
        kind: weights(kind, weighting, p2_gamma=0.7) * (truth - guess) ** 2
        for kind, (truth, guess) in readings.items()
    }
    for kind in TYPES:
        np.testing.assert_allclose(costs[kind], costs["sample"] * np.ones(1000), rtol=1e-9)


@pytest.mark.parametrize("weighting", ["snr", "min_snr", "p2"])
def test_the_loss_is_the_same_in_every_reading(weighting: str) -> None:
    """Through the loss itself, of networks that guess x0 = tanh(scale x)."""
    rng = np.random.default_rng(0)
    t = np.array([0, 1, 10, 200, 500, 900, 999], np.int32)
    image = rng.uniform(-1, 1, (len(t), 4, 4, 2)).astype(np.float32)
    noise = rng.standard_normal(image.shape).astype(np.float32)
    schedule, found = dj.noise_schedule(), {}
    alpha, sigma = (
        np.float32(column)[t][:, None, None, None] for column in (schedule.alpha, schedule.sigma)
    )
    for kind in TYPES:

        def guess(params: Any, x: Any, *_: Any, kind: str = kind) -> Any:
            x0 = jnp.tanh(params["scale"] * x)
            eps = (x - alpha * x0) / sigma
            return {"sample": x0, "epsilon": eps, "v_prediction": alpha * eps - sigma * x0}[kind]

        scheduler = dj.DDPMScheduler(prediction_type=kind)
        loss = Loss(guess, scheduler, Objective(weighting=weighting, p2_gamma=0.7))
        drawn = Drawn(t, noise, None, jax.random.key(0))
        found[kind] = np.asarray(loss.per_image({"scale": 0.8}, {"image": image}, drawn)["loss"])
    assert np.all(found["sample"] > 0)
    for kind in ("epsilon", "v_prediction"):
        np.testing.assert_allclose(found[kind], found["sample"], rtol=READINGS)


@pytest.mark.parametrize("weighting", ["snr", "min_snr", "p2"])
@pytest.mark.parametrize("prediction_type", TYPES)
def test_no_signal_at_the_end(weighting: Any, prediction_type: Any) -> None:
    """At signal-to-noise ratio 0 an error in x0 costs nothing; one in eps what it does nearby."""
    schedule = dj.noise_schedule(rescale_betas_zero_snr=True)
    found = loss_weights(schedule, prediction_type, weighting)
    assert np.all(np.isfinite(found))
    assert found[-1] == (1 if prediction_type == "epsilon" else 0)
