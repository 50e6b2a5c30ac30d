"""Likelihoods of a set, and their metric: those of the functions, whatever the batches."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

import ddpm_jax as dj
from ddpm_jax.evaluation.levels import from_uint8
from ddpm_jax.evaluation.metrics import Evidence, Likelihood, ModelEvidence
from ddpm_jax.evaluation.nll import bits_of_set
from tests.evaluation.normal import chain, epsilon, keys_of, params_of, pixels

STD = 0.3
SCHEDULER = chain(12)
PARAMS = params_of(SCHEDULER, STD)
IMAGES = np.rint(pixels(0, (5, 4, 3, 1), STD) * 127.5 + 127.5).astype(np.uint8)
LABELS = np.array([0, 1, 1, 0, 1], np.int32)
X0, KEY, KEYS = from_uint8(IMAGES), jax.random.key(3), keys_of(5, seed=3)


def of_classes(params: Any, x: Array, timestep: Array) -> Array:
    """The class scales what is predicted."""
    own, labels = params
    return epsilon(own, x, timestep) * jnp.where(labels == 1, 0.8, 1.0)[:, None, None, None]


def asked(denoise: Any, labels: np.ndarray | None) -> Evidence:
    batches = [IMAGES[i : i + 2] for i in range(0, 5, 2)]
    numbers = (batches, 3, labels, lambda arrays: arrays)  # computed as batches of 3
    return Evidence(model=ModelEvidence(denoise, PARAMS, SCHEDULER, *numbers))


def test_the_bound_with_labels() -> None:
    found = Likelihood(timesteps=4, seed=3).compute(asked(of_classes, LABELS))
    params = (PARAMS, jnp.asarray(LABELS))
    call = (of_classes, params, SCHEDULER, X0, KEYS)
    wanted = np.float64(dj.variational_bound(*call, num_timesteps=4).total)
    assert found["bits_per_dim"] == pytest.approx(wanted.mean(), rel=1e-5)
    assert found["bits_per_dim_error"] == pytest.approx(wanted.std() / 2, rel=1e-4)  # n - 1 = 4


def test_the_flow_with_labels() -> None:
    """As the images of one class, and as those of the other, with a network of that class."""
    pytest.importorskip("diffrax")
    metric = Likelihood(method="flow", tolerance=1e-3, seed=3)
    found = metric.compute(asked(of_classes, LABELS))
    same: Any = {"rtol": 1e-3, "atol": 1e-3}
    of_one = [
        np.asarray(
            dj.flow_log_likelihood(
                of_classes, (PARAMS, jnp.full(1, label)), SCHEDULER, X0, KEYS, **same
            ).bits_per_dim
        )
        for label in (0, 1)
    ]
    assert np.abs(of_one[0] - of_one[1]).min() > 0.01
    wanted = np.where(LABELS == 0, *of_one).mean()
    assert found["bits_per_dim"] == pytest.approx(wanted, rel=1e-4)
    with pytest.raises(ValueError, match=r"of_each must have arrays \(5, \.\.\.\), got shape \(2,"):
        dj.flow_log_likelihood(
            of_classes, PARAMS, SCHEDULER, X0, KEYS, of_each=jnp.asarray(LABELS[:2])
        )


def bound(x0: np.ndarray, keys: Array) -> Array:
    return dj.variational_bound(epsilon, PARAMS, SCHEDULER, x0, keys).total


def nan_for_one(x0: np.ndarray, keys: Array) -> np.ndarray:
    """NaN for the image IMAGES[3] alone."""
    same = np.abs(x0 - from_uint8(IMAGES[3:4])).max((1, 2, 3)) == 0
    return np.where(same, np.nan, 1.0)


def test_a_set_in_batches() -> None:
    found = bits_of_set(bound, [IMAGES[:3], IMAGES[3:]], KEY, progress=False)
    expected = np.asarray(bound(X0, KEYS), np.float64)
    np.testing.assert_allclose(found.bits_per_dim, expected, rtol=1e-5)
    assert found.mean == pytest.approx(expected.mean(), rel=1e-5)
    assert found.standard_error == pytest.approx(expected.std() / 2, rel=1e-3)  # n - 1 = 4


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([], "at least one image"),
        ([IMAGES[:2], IMAGES[2:4]], "the bits of image 3 are not finite"),
        ([IMAGES[:2], IMAGES[2:]], "a batch has 3 images, and 2 are computed together"),
    ],
)
def test_sets_that_are_refused(batches: list[np.ndarray], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bits_of_set(nan_for_one, batches, KEY, progress=False)


def test_every_pixel_has_its_level() -> None:
    x0 = from_uint8(np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1))
    assert np.array_equal(dj.to_uint8(np.clip(x0 / 2 + 0.5, 0, 1)).ravel(), np.arange(256))
    assert (x0.min(), x0.max()) == (-1, 1)


def test_one_image_has_no_standard_error() -> None:
    one = asked(epsilon, None).model
    assert one is not None
    alone = Evidence(model=one._replace(batches=[IMAGES[:1]]))
    assert set(Likelihood(timesteps=2).compute(alone)) == {"bits_per_dim"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num": 6}, r"nll\.num must lie in 0\.\.5"),
        ({"seed": 2**32}, r"nll\.seed must lie in"),
        ({"timesteps": -1}, r"nll\.timesteps must be at least 1, or 0 for all, got -1"),
        ({"method": "flow", "timesteps": 3}, r"nll\.timesteps is not of nll\.method=flow"),
        ({"method": "flow", "probes": 0}, r"nll\.probes must be at least 1, got 0"),
        ({"method": "flow", "tolerance": float("nan")}, r"nll\.tolerance must lie in \(0, 1\)"),
        ({"method": "flow", "probe": "exact", "probes": 2}, r"nll\.probe=exact has no nll\.probes"),
        ({"tolerance": 0.1}, r"nll\.tolerance is not of nll\.method=bound"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    assert re.search(message, "; ".join(Likelihood(**options).faults(0, 5)))


def test_models_that_have_no_such_likelihood() -> None:
    shape = (65, 64, 1)
    flow = Likelihood(method="flow", probe="exact")
    for metric, scheduler, message in (
        (Likelihood(timesteps=13), SCHEDULER, "at most the model's 12 timesteps"),
        (Likelihood(), dj.EDMEulerScheduler(), "got EDMEulerScheduler"),
        (flow, SCHEDULER, "at most 4096 dimensions, and images have 4160"),
        (flow, dj.LCMScheduler(), "networks of LCMScheduler are distilled"),
    ):
        (fault,) = metric.model_faults(scheduler, shape)
        assert message in fault
    assert Likelihood().process(dj.EulerDiscreteScheduler) is dj.DDPMScheduler
    assert flow.process(dj.EulerDiscreteScheduler) is dj.EulerDiscreteScheduler
    assert Likelihood().process(dj.LCMScheduler) is dj.LCMScheduler
