"""The moving average against its definition, and where it is known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpm_jax.training import Ema

# float32 sums of fifty terms.
ROUNDING = 2e-6


def run(ema: Ema, values: np.ndarray, start: float = 5.0) -> np.ndarray:
    """The average after each of the values."""
    mean, found = {"w": jnp.full((), start)}, []
    for k, value in enumerate(values):
        mean = ema.update(mean, {"w": jnp.float32(value)}, jnp.int32(k + 1))
        found.append(float(mean["w"]))
    return np.array(found)


VALUES = np.random.default_rng(0).uniform(1, 2, 50)


@pytest.mark.parametrize("power", [None, 2 / 3])
def test_by_the_definition(power: float | None) -> None:
    """In float64. With power 2/3 decay 0.9 is reached at update 32."""
    mean, expected = 5.0, []
    for k, value in enumerate(VALUES):
        decay = 0.9 if power is None else min(0.9, 1 - (1 + k) ** -power)
        mean = decay * mean + (1 - decay) * value
        expected.append(mean)
    found = run(Ema(decay=0.9, power=power), VALUES)
    np.testing.assert_allclose(found, expected, rtol=ROUNDING)


def test_power_one_is_the_mean_of_all() -> None:
    """1 - d_k = 1 / k: the plain mean, in which the start has no part."""
    means = np.cumsum(VALUES) / np.arange(1, 51)
    found = run(Ema(decay=0.999999, power=1.0), VALUES)
    np.testing.assert_allclose(found, means, rtol=ROUNDING)


@pytest.mark.parametrize(
    ("ema", "update", "decay"),
    [
        (Ema(), 1, 0.9999),
        (Ema(), 10**6, 0.9999),
        (Ema(power=0.75), 1, 0.0),
        (Ema(power=0.75), 2, 1 - 2**-0.75),
        (Ema(power=0.75), 10_001, 1 - 10_001**-0.75),  # about 0.999
        (Ema(power=0.75), 215_445, 0.9999),
        (Ema(power=2 / 3, inv_gamma=4.0), 13, 1 - 4 ** (-2 / 3)),
    ],
)
def test_decay_at_some_updates(ema: Ema, update: int, decay: float) -> None:
    assert float(ema.rate(jnp.int32(update))) == pytest.approx(1 - decay, rel=1e-5)


def test_keeps_its_own_dtype() -> None:
    kept = Ema().update({"w": jnp.ones(3)}, {"w": jnp.ones(3, jnp.bfloat16)}, jnp.int32(1))
    assert kept["w"].dtype == jnp.float32


def test_is_a_static_value() -> None:
    assert Ema(decay=0.5) == Ema(decay=0.5)
    jax.jit(lambda ema: ema.rate(jnp.int32(1)), static_argnums=0)(Ema(decay=0.5))
