"""Every scheduler and option against diffusers lifted to float64, with the same noise.

Both sides run the same stand-in network and are compared after every evaluation.
"""

import functools
from typing import Any

import numpy as np
import pytest
import torch

import ddpm_jax as dj
from tests.parity import lifted
from tests.parity.compare import allowed, shipped
from tests.parity.scheduler_cases import Case, cases_of
from tests.parity.sweep import COMPARED, Outcome, outcome
from tests.schedulers.matrix import FAMILIES, Family

pytestmark = [
    # diffusers hands torch tensors to np.array in a way that numpy 2 will drop
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.algorithm_type:FutureWarning"),  # dpmsolver's
]

# diffusers as it is shipped, its tables and samples in float32: measured 3.1e-5 at most.
FLOAT32 = 6e-5
# Where eps is (x - x0) / sigma, float32 loses more at small sigma: measured 8.0e-5 at most. Where
# diffusers' closed forms cancel, of the third order of close levels: 2.8e-4. And where a run begins
# at the smallest sigma, with eps = (x - x0) / sigma: 1.2e-4.
SHIPPED = {"HeunDiscrete": 1.2e-4, "LMSDiscrete": 1.2e-4}
SHIPPED |= {"DEISMultistep": 4e-4, "SASolver": 4e-4}
SHIPPED |= {"DDIMInverse": 2e-4, "DPMSolverMultistepInverse": 2e-4}

WALKED = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)


@functools.cache
def outcomes(family: Family) -> list[tuple[Case, Outcome]]:
    return [(case, outcome(case, allowed)) for case in cases_of(family)]


@WALKED
def test_lifted(family: Family) -> None:
    """Every case of tests/schedulers/matrix.py."""
    found = outcomes(family)
    faults = [f"{case}: {of.fault}" for case, of in found if of.fault]
    assert not faults, "\n".join(faults)
    assert sum(of.kind == COMPARED for _, of in found) >= len(found) / 3


@WALKED
def test_as_shipped(family: Family) -> None:
    """diffusers in its own float32, over linear betas; see `lifted` for what is handed to it."""
    compared = [case for case, of in outcomes(family) if of.kind == COMPARED]
    of_noise = {"use_flow_sigmas": True, "prediction_type": "epsilon"}.items()  # eps at alpha 1e-6
    other = {"beta_schedule", "trained_betas", "steps_offset"}
    plain = [
        case
        for case in compared
        if 10 <= case.steps < 1000
        and not (other & set(case.config) or of_noise <= case.config.items())
    ]
    run = {str(case): shipped(case) for case in plain}
    found = {name: value for name, value in run.items() if value is not None}
    assert len(found) > len(plain) / 2
    allowed = SHIPPED.get(family.name, FLOAT32)
    wrong = [f"{value:.1e} {name}" for name, value in found.items() if not value <= allowed]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("length", [1000, 50])
@pytest.mark.parametrize(
    "fields",
    [
        {"beta_schedule": "linear"},
        {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
        {"beta_schedule": "squaredcos_cap_v2"},
        {"beta_schedule": "sigmoid"},
        {"beta_schedule": "laplace"},
        {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"},
    ],
    ids=str,
)
def test_alpha_bar(fields: dict[str, Any], length: int) -> None:
    fields = fields | {"num_train_timesteps": length}
    ours = dj.DDPMScheduler(**fields).noise_schedule.alpha_bar
    with lifted.lifted():
        theirs = lifted.build("DDPMScheduler", **fields).alphas_cumprod.numpy()
    assert theirs.dtype == np.float64
    # a thousand products, and a subtraction of neighbours where the end is moved to zero
    np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-20)


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_every_grid(spacing: str) -> None:
    """All 1000 numbers of steps; trailing less the -1 that diffusers adds for 62 of them."""
    theirs = lifted.build("DDPMScheduler", timestep_spacing=spacing)
    ours = dj.DDPMScheduler(timestep_spacing=spacing)
    surplus = 0
    for n in range(1, 1001):
        theirs.set_timesteps(n)
        expected = theirs.timesteps.numpy()
        surplus += len(expected) != n
        assert len(expected) == n or expected[-1] == -1
        np.testing.assert_array_equal(ours._timestep_grid(n), expected[:n])
    assert surplus == (62 if spacing == "trailing" else 0)


@pytest.mark.parametrize(
    "kind", ["DDPM", "DDIM", "PNDM", "EulerDiscrete", "EulerAncestralDiscrete"]
)
def test_add_noise(kind: str) -> None:
    """By training timestep; diffusers in float64, ours in float32."""
    name, euler = f"{kind}Scheduler", kind.startswith("Euler")
    rng = np.random.default_rng(0)
    x0, noise = rng.standard_normal((2, 4, 2, 2, 3)).astype(np.float32)
    timestep = np.array([0, 17, 500, 999])
    ours = getattr(dj, name)()
    # float32 rounding of the product and the sum
    close = {"atol": 1e-6, "rtol": 1e-6 if euler else 1e-7}
    with lifted.lifted():
        theirs = lifted.build(name)
        sides = [torch.from_numpy(a.astype(np.float64)) for a in (x0, noise)]
        told = torch.from_numpy(timestep.astype(np.float64 if euler else np.int64))
        expected = theirs.add_noise(*sides, told).numpy()
        np.testing.assert_allclose(ours.add_noise(x0, noise, timestep), expected, **close)
        if not euler and hasattr(theirs, "get_velocity"):
            velocity = theirs.get_velocity(*sides, told).numpy()
            np.testing.assert_allclose(ours.get_velocity(x0, noise, timestep), velocity, **close)


FLOWS = ("FlowMatchEulerDiscrete", "FlowMatchHeunDiscrete")


@pytest.mark.parametrize("kind", ["EDMEuler", "CMStochasticIterative", *FLOWS, "ScoreSdeVe"])
def test_add_noise_without_betas(kind: str) -> None:
    """By the place in the levels of training, which diffusers orders otherwise."""
    name, rng = f"{kind}Scheduler", np.random.default_rng(0)
    x0, noise = rng.standard_normal((2, 3, 2, 2, 3)).astype(np.float32)
    places = np.array([0, 17, 39])
    with lifted.lifted():
        theirs = lifted.build(name)
        if kind == "EDMEuler":  # it begins with one level more than timesteps
            theirs.set_timesteps(1000)
        sides = [torch.from_numpy(a.astype(np.float64)) for a in (x0, noise)]
        told = torch.from_numpy(places)
        if kind != "ScoreSdeVe":
            down = kind == "CMStochasticIterative"
            told = (theirs.timesteps if down else theirs.timesteps.flip(0))[told]
        if kind == "FlowMatchHeunDiscrete":  # one timestep a call, and it is remembered
            noisy = []
            for a, b, t in zip(*sides, told, strict=True):
                theirs._step_index = None
                noisy.append(theirs.scale_noise(a, t, b))
            expected = torch.stack(noisy)
        elif kind == "FlowMatchEulerDiscrete":
            expected = theirs.scale_noise(sides[0], told, sides[1])
        else:
            expected = theirs.add_noise(*sides, told)
    ours = getattr(dj, name)().add_noise(x0, noise, places)
    np.testing.assert_allclose(ours, expected.numpy(), rtol=1e-6, atol=1e-6)


def test_mu_of_a_size() -> None:
    from diffusers.pipelines.flux.pipeline_flux import calculate_shift

    for sizes in ((256, 4096, 0.5, 1.15), (128, 1024, 0.4, 1.2)):
        names = ("base_image_seq_len", "max_image_seq_len", "base_shift", "max_shift")
        ours = dj.FlowMatchEulerDiscreteScheduler(**dict(zip(names, sizes, strict=True)))
        for tokens in (1, 500, 4096):
            expected = calculate_shift(tokens, *sizes)
            assert ours.mu_of(tokens) == pytest.approx(expected, rel=1e-12)
