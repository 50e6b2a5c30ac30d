"""The variational bound against the formulas of improved DDPM, in torch and float64.

Written from Ho et al. 2020 (arXiv:2006.11239, eqs. 5 to 7 and 13) and Nichol and Dhariwal 2021
(arXiv:2102.09672, eqs. 9 to 15), on our draws. Their code has an approximation of the normal
distribution, wrong by up to 3e-4; here it is torch's own.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import Tensor

import ddpm_jax as dj

STEPS = 40
BETAS = np.linspace(5e-4, 0.2, STEPS)
LEVELS = (np.arange(256) / 127.5 - 1).astype(np.float32)


def network(params: Any, x: jax.Array, timestep: jax.Array) -> jax.Array:
    """Some smooth function of both, with a second half in about -1 to 1."""
    time = timestep.reshape(-1, 1, 1, 1) / STEPS if timestep.ndim else timestep / STEPS
    mixed = jnp.roll(x, 1, axis=2)
    first = jnp.tanh(params * x + 0.5 * mixed) * (0.5 + time)
    return jnp.concatenate([first, jnp.sin(3 * x + time)], axis=-1)


def torch_network(x: Tensor, t: int) -> tuple[Tensor, Tensor]:
    time = t / STEPS
    mixed = torch.roll(x, 1, 2)
    return torch.tanh(0.8 * x + 0.5 * mixed) * (0.5 + time), torch.sin(3 * x + time)


def kl(mean: Tensor, log_var: Any, other: Tensor, other_log_var: Any) -> Tensor:
    ratio = log_var - other_log_var
    square = (mean - other) ** 2 * torch.exp(-torch.as_tensor(other_log_var))
    return 0.5 * (-1.0 - ratio + torch.exp(torch.as_tensor(ratio)) + square)


def decoder(x0: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """log p of the bins, eq. 13."""
    inverse = torch.exp(-log_scale)
    up = torch.special.ndtr((x0 - mean + 1 / 255) * inverse)
    down = torch.special.ndtr((x0 - mean - 1 / 255) * inverse)
    mass = torch.where(x0 < -0.999, up, torch.where(x0 > 0.999, 1 - down, up - down))
    return torch.log(mass.clamp(min=1e-12))


def reference(kind: str, variance: str, clip: bool, x0: Tensor, noises: list[Tensor]) -> Any:
    """All terms and squared errors, for ascending timesteps, and L_T."""
    bar = np.cumprod(1 - BETAS)
    before = np.append(1.0, bar[:-1])
    true_var = BETAS * (1 - before) / (1 - bar)
    true_log = np.log(np.append(true_var[1], true_var[1:]))
    terms, errors = [], []
    for t in range(STEPS):
        x = math.sqrt(bar[t]) * x0 + math.sqrt(1 - bar[t]) * noises[t]
        output, values = torch_network(x, t)
        guess = {
            "epsilon": (x - math.sqrt(1 - bar[t]) * output) / math.sqrt(bar[t]),
            "sample": output,
            "v_prediction": math.sqrt(bar[t]) * x - math.sqrt(1 - bar[t]) * output,
        }[kind]
        guess = guess.clamp(-1, 1) if clip else guess
        large = math.log(true_var[1] if t == 0 else BETAS[t])
        share = (values + 1) / 2
        log_var = {
            "fixed_small": torch.full_like(x, true_log[t]),
            "fixed_large": torch.full_like(x, large),
            "learned_range": share * math.log(BETAS[t]) + (1 - share) * true_log[t],
        }[variance]
        of_x0 = math.sqrt(before[t]) * BETAS[t] / (1 - bar[t])
        of_x = math.sqrt(1 - BETAS[t]) * (1 - before[t]) / (1 - bar[t])
        true_mean, mean = (of_x0 * a + of_x * x for a in (x0, guess))
        nats = (
            -decoder(x0, mean, log_var / 2) if t == 0 else kl(true_mean, true_log[t], mean, log_var)
        )
        terms.append(nats.mean((1, 2, 3)) / math.log(2))
        errors.append(((x0 - guess) ** 2).mean((1, 2, 3)))
    end = kl(math.sqrt(bar[-1]) * x0, math.log(1 - bar[-1]), torch.zeros(1), 0.0)
    prior = end.mean((1, 2, 3)) / math.log(2)
    return torch.stack(terms, 1).numpy(), torch.stack(errors, 1).numpy(), prior.numpy()


@pytest.mark.parametrize(
    ("kind", "variance", "clip"),
    [
        (kind, variance, (i + j) % 2 == 0)
        for i, kind in enumerate(("epsilon", "sample", "v_prediction"))
        for j, variance in enumerate(("fixed_small", "fixed_large", "learned_range"))
    ],
)
def test_terms_on_the_same_draws(kind: Any, variance: Any, clip: bool) -> None:
    x0 = np.random.default_rng(0).choice(LEVELS, (3, 5, 7, 1))
    keys = dj.sample_keys(jax.random.key(0), 3)
    scheduler = dj.DDPMScheduler(
        num_train_timesteps=STEPS,
        trained_betas=BETAS.tolist(),
        prediction_type=kind,
        variance_type=variance,
    )
    found = dj.variational_bound(network, jnp.float32(0.8), scheduler, x0, keys, clip_denoised=clip)
    noises = [torch.from_numpy(np.float64(dj.noise(keys, t, (5, 7, 1)))) for t in range(STEPS)]
    terms, errors, prior = reference(kind, variance, clip, torch.from_numpy(np.float64(x0)), noises)
    # Where the decoder's bins are far from the mean, ours has their logarithm and the reference,
    # like the original, a floor of 1e-12 under the mass: t = 0 is compared where that is not so.
    np.testing.assert_allclose(found.terms[:, 1:], terms[:, 1:], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.mse, errors, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.prior, prior, rtol=1e-5)


def test_the_decoder_near_the_mean() -> None:
    """A network whose x0 is right within a few levels: every bin has mass."""
    x0 = np.random.default_rng(1).choice(LEVELS, (3, 5, 7, 1))

    def close(params: Any, x: jax.Array, timestep: jax.Array) -> jax.Array:
        return params + 0.02 * jnp.sin(40 * params)

    scheduler = dj.DDPMScheduler(
        num_train_timesteps=STEPS, trained_betas=BETAS.tolist(), prediction_type="sample"
    )
    keys = dj.sample_keys(jax.random.key(0), 3)
    found = dj.variational_bound(close, jnp.asarray(x0), scheduler, x0, keys, clip_denoised=True)
    exact = torch.from_numpy(np.float64(x0))
    mean = (exact + 0.02 * torch.sin(40 * exact)).clamp(-1, 1)
    bar = np.cumprod(1 - BETAS)
    log_var = torch.full_like(exact, math.log(BETAS[1] * (1 - bar[0]) / (1 - bar[1])))
    expected = -decoder(exact, mean, log_var / 2).mean((1, 2, 3)) / math.log(2)
    np.testing.assert_allclose(found.terms[:, 0], expected.numpy(), rtol=1e-5)
