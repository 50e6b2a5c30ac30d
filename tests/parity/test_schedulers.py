"""Every scheduler and option against diffusers lifted to float64, with the same noise.

Both sides run the same stand-in network and are compared after every evaluation.
"""

import dataclasses
from typing import Any

import numpy as np
import pytest

import ddpm_jax as dj
from ddpm_jax.schedulers import SCHEDULERS
from tests.parity import lifted
from tests.parity.compare import allowed, difference
from tests.parity.scheduler_cases import GROUPS, Case, cases_by_fields

pytestmark = [
    # diffusers hands torch tensors to np.array in a way that numpy 2 will drop
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.algorithm_type:FutureWarning"),  # dpmsolver's
]

# diffusers as it is shipped, its tables and samples in float32: measured 3.1e-5 at most.
SHIPPED = 6e-5
# Where eps is (x - x0) / sigma, float32 loses more at small sigma: measured 8.0e-5 at most.
SHIPPED_REFINED = 1.2e-4

# Where diffusers' closed forms cancel in float32, of the third order of close levels: measured
# 2.8e-4 at most. And where a run begins at the smallest sigma, with eps = (x - x0) / sigma: 1.2e-4.
SHIPPED_CANCELING = {"DEISMultistep": 4e-4, "SASolver": 4e-4}
SHIPPED_CANCELING |= {"DDIMInverse": 2e-4, "DPMSolverMultistepInverse": 2e-4}

# Schedulers without a list of cases of their own take those of their fields.
ALL_GROUPS = GROUPS | {
    name: cases_by_fields(name, [field.name for field in dataclasses.fields(cls)])
    for cls in SCHEDULERS
    if (name := cls.__name__) not in {case.name for cases in GROUPS.values() for case in cases}
}


def cases_of(group: str) -> list[Case]:
    return [c for c in ALL_GROUPS[group] if c.steps <= c.config.get("num_train_timesteps", 1000)]


def report(found: dict[str, float], allowed: dict[str, float]) -> None:
    wrong = {name: value for name, value in found.items() if not value <= allowed[name]}
    assert not wrong, "\n".join(f"{value:.1e} {name}" for name, value in wrong.items())


@pytest.mark.parametrize("group", ALL_GROUPS)
def test_lifted(group: str) -> None:
    chosen = cases_of(group)
    assert len(chosen) > 40
    with lifted.lifted():
        found = {str(case): difference(case) for case in chosen}
    report(found, {str(case): allowed(case) for case in chosen})


@pytest.mark.parametrize("group", ALL_GROUPS)
def test_as_shipped(group: str) -> None:
    """diffusers in its own float32, over linear betas; see `lifted` for what is handed to it."""
    steps = range(2, 51) if group == "IPNDM" else (10, 50)  # it has no other options
    chosen = [c for c in cases_of(group) if c.steps in steps and "steps_offset" not in c.config]
    plain = [c for c in chosen if not {"beta_schedule", "trained_betas"} & set(c.config)]
    assert len(plain) > 10
    found = {str(case): difference(case, np.float32) for case in plain}
    allowed = SHIPPED if group in GROUPS else SHIPPED_REFINED
    report(found, dict.fromkeys(found, SHIPPED_CANCELING.get(group, allowed)))


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


@pytest.mark.parametrize("name", ["DDPMScheduler", "DDIMScheduler", "PNDMScheduler"])
def test_add_noise(name: str) -> None:
    """By training timestep; diffusers in float64, ours in float32."""
    import torch

    rng = np.random.default_rng(0)
    x0, noise = rng.standard_normal((2, 4, 2, 2, 3)).astype(np.float32)
    timestep = np.array([0, 17, 500, 999])
    ours = getattr(dj, name)()
    with lifted.lifted():
        theirs = lifted.build(name)
        sides = [torch.from_numpy(a.astype(np.float64)) for a in (x0, noise)]
        expected = theirs.add_noise(*sides, torch.from_numpy(timestep)).numpy()
        # float32 rounding of the product and the sum
        np.testing.assert_allclose(ours.add_noise(x0, noise, timestep), expected, atol=1e-6)
        if hasattr(theirs, "get_velocity"):
            velocity = theirs.get_velocity(*sides, torch.from_numpy(timestep)).numpy()
            np.testing.assert_allclose(ours.get_velocity(x0, noise, timestep), velocity, atol=1e-6)


@pytest.mark.parametrize("name", ["EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler"])
def test_add_noise_of_the_euler_family(name: str) -> None:
    import torch

    rng = np.random.default_rng(0)
    x0, noise = rng.standard_normal((2, 4, 2, 2, 3)).astype(np.float32)
    timestep = np.array([0, 17, 500, 999])
    with lifted.lifted():
        theirs = lifted.build(name)
        sides = [torch.from_numpy(a.astype(np.float64)) for a in (x0, noise)]
        expected = theirs.add_noise(*sides, torch.from_numpy(timestep.astype(np.float64))).numpy()
    ours = getattr(dj, name)().add_noise(x0, noise, timestep)
    np.testing.assert_allclose(ours, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "name",
    [
        "EDMEulerScheduler",
        "CMStochasticIterativeScheduler",
        "FlowMatchEulerDiscreteScheduler",
        "FlowMatchHeunDiscreteScheduler",
        "ScoreSdeVeScheduler",
    ],
)
def test_add_noise_without_betas(name: str) -> None:
    """By the place in the levels of training, which diffusers orders otherwise."""
    import torch

    rng = np.random.default_rng(0)
    x0, noise = rng.standard_normal((2, 3, 2, 2, 3)).astype(np.float32)
    places = np.array([0, 17, 39])
    with lifted.lifted():
        theirs = lifted.build(name)
        if name == "EDMEulerScheduler":  # it begins with one level more than timesteps
            theirs.set_timesteps(1000)
        sides = [torch.from_numpy(a.astype(np.float64)) for a in (x0, noise)]
        told = torch.from_numpy(places) if name == "ScoreSdeVeScheduler" else theirs.timesteps
        if name not in ("ScoreSdeVeScheduler", "CMStochasticIterativeScheduler"):
            told = told.flip(0)[places]
        elif name == "CMStochasticIterativeScheduler":
            told = told[places]
        if name == "FlowMatchHeunDiscreteScheduler":  # one timestep a call, and it is remembered
            noisy = []
            for a, b, t in zip(*sides, told, strict=True):
                theirs._step_index = None
                noisy.append(theirs.scale_noise(a, t, b))
            expected = torch.stack(noisy).numpy()
        elif name.startswith("FlowMatch"):
            expected = theirs.scale_noise(sides[0], told, sides[1]).numpy()
        else:
            expected = theirs.add_noise(*sides, told).numpy()
    ours = getattr(dj, name)().add_noise(x0, noise, places)
    np.testing.assert_allclose(ours, expected, rtol=1e-6, atol=1e-6)


def test_mu_of_a_size() -> None:
    from diffusers.pipelines.flux.pipeline_flux import calculate_shift

    for sizes in ((256, 4096, 0.5, 1.15), (128, 1024, 0.4, 1.2)):
        names = ("base_image_seq_len", "max_image_seq_len", "base_shift", "max_shift")
        ours = dj.FlowMatchEulerDiscreteScheduler(**dict(zip(names, sizes, strict=True)))
        for tokens in (1, 500, 4096):
            expected = calculate_shift(tokens, *sizes)
            assert ours.mu_of(tokens) == pytest.approx(expected, rel=1e-12)
