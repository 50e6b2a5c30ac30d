"""Schedulers of distilled networks: their grids, readings, and fields that they do not read."""

from typing import Any

import numpy as np
import pytest

import ddpm_jax as dj
from tests.schedulers.propagate import propagate
from tests.schedulers.test_order import STRIDES, fitted_slope, path_error

DISTILLED = (dj.LCMScheduler, dj.TCDScheduler)
ONE = np.ones((1, 1, 1, 1))

# Stable Diffusion 1.5, scheduler/scheduler_config.json
STABLE_DIFFUSION = {
    "_class_name": "PNDMScheduler",
    "_diffusers_version": "0.6.0",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
    "clip_sample": False,
}


@pytest.mark.parametrize("cls", DISTILLED)
def test_known_grids(cls: Any) -> None:
    """Of 50 timesteps 19, 39, ..., 999 every 50 / N-th, from the last."""
    assert cls().table(1).timestep.tolist() == [999]
    assert cls().table(4).timestep.tolist() == [999, 759, 499, 259]
    assert cls().table(8).timestep.tolist() == [999, 879, 759, 639, 499, 379, 259, 139]
    assert cls().table(50).timestep.tolist() == list(range(999, 0, -20))
    # T / K is rounded down
    few = cls(original_inference_steps=30)
    assert few.table(30).timestep.tolist() == list(range(989, 0, -33))


def boundary(t: int, scaling: float) -> tuple[float, float]:
    """c_skip and c_out, as Karras et al. 2022 (arXiv 2206.00364) have them, Table 1: of a level
    s = scaling t, divided by sigma_data in c_out so that it goes to 1.
    """
    variance = 0.25 / (0.25 + (scaling * t) ** 2)
    return variance, np.sqrt(1 - variance)


@pytest.mark.parametrize("scaling", [10.0, 1e-3])
def test_the_reading_of_a_consistency_model(scaling: float) -> None:
    """Each step is alpha' f + sigma' z, and the last is f; f is x at timestep 0."""
    grid = [999, 600, 20, 0]
    scheduler = dj.LCMScheduler(timestep_scaling=scaling)
    table = scheduler.table(timesteps=grid, dtype=np.float64)
    bar = scheduler.noise_schedule.alpha_bar
    x, x0 = 1.3 * ONE, 0.4
    for i, (t, after) in enumerate(zip(grid, [*grid[1:], None], strict=True)):
        skip, out = boundary(t, scaling)
        alpha, sigma = (1.0, 0.0) if after is None else (bar[after] ** 0.5, (1 - bar[after]) ** 0.5)
        eps = (x - bar[t] ** 0.5 * x0) / (1 - bar[t]) ** 0.5
        terms = np.concatenate([x, eps], -1).ravel()
        reached = float(table.mix[i, 0] @ terms)
        assert reached == pytest.approx(float(alpha * (skip * x + out * x0).item()), rel=1e-12)
        assert table.noise_scale[i] == pytest.approx(sigma, abs=1e-15)
    np.testing.assert_allclose(table.mix[-1, 0], [1, 0], atol=1e-15)


def test_one_step_is_the_prediction() -> None:
    """At timestep 999 c_skip is 3e-9."""
    table = dj.LCMScheduler(prediction_type="sample").table(1, dtype=np.float64)
    assert propagate(table, lambda x, i: 0.7 * ONE, ONE)[0].item() == pytest.approx(0.7, abs=1e-8)


def test_a_run_that_ends_above_the_data_stays_at_its_level() -> None:
    table = dj.LCMScheduler().table(sigmas=[10.0, 2.0, 0.5], dtype=np.float64)
    assert table.noise_scale[-1] == 0
    alpha, sigma = table.level[-1]
    x0, eps = 0.3 * ONE, 1.2 * ONE
    registers = np.array([float((alpha * x0 + sigma * eps).item()), 1.2])
    norm = np.hypot(1, 0.5)
    assert table.mix[-1, 0] @ registers == pytest.approx((0.3 + 0.5 * 1.2) / norm, rel=1e-5)


# TCD


def test_tcd_without_noise_is_ddim() -> None:
    """On the same grid; DDIM ends at timestep 0 too."""
    tcd = dj.TCDScheduler().table(10, eta=0.0, dtype=np.float64)
    fields = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    ddim = dj.DDIMScheduler(clip_sample=False, set_alpha_to_one=False, **fields)
    expected = ddim.table(timesteps=tcd.timestep.tolist(), dtype=np.float64)
    assert tcd.noise_scale is None
    np.testing.assert_allclose(tcd.mix, expected.mix, rtol=1e-12)


def test_tcd_without_noise_is_of_first_order() -> None:
    errors = [path_error(dj.TCDScheduler(), stride, eta=0.0) for stride in STRIDES]
    assert abs(fitted_slope(errors) - 1) < 0.25, errors
    assert errors[-1] < 0.01


@pytest.mark.parametrize(
    ("eta", "below"), [(1.0, [0, 0]), (0.3, [63, 7]), (0.5, [45, 5]), (0.25, [67, 7])]
)
def test_tcd_goes_below_the_next_timestep(eta: float, below: list[int]) -> None:
    """To floor((1 - eta) t'), and back by noise; 0.7 * 90 is 62.99999999999999 in floats."""
    scheduler = dj.TCDScheduler()
    table = scheduler.table(timesteps=[500, 90, 10], eta=eta, dtype=np.float64)
    bar = scheduler.noise_schedule.alpha_bar
    for i, (after, s) in enumerate(zip([90, 10], below, strict=True)):
        assert table.noise_scale[i] == pytest.approx(np.sqrt(1 - bar[after] / bar[s]), rel=1e-9)
    assert table.noise_scale[2] == 0


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_tcd_with_given_levels(eta: float) -> None:
    """Fractional timesteps, one below that of timestep 0, and an end of one's own."""
    table = dj.TCDScheduler().table(sigmas=[14.0, 2.0, 0.4, 0.01, 0.0], eta=eta, dtype=np.float64)
    variance = table.level[0, 1] ** 2
    for i, (end_alpha, end_sigma) in enumerate([*table.level[1:], (1.0, 0.0)]):
        alpha, sigma = table.level[i]
        gain = table.mix[i, 0] @ [1.0, 1 / sigma]  # output = (x - alpha x0) / sigma
        offset = -table.mix[i, 0, 1] * alpha / sigma
        noise = 0.0 if table.noise_scale is None else table.noise_scale[i] ** 2
        variance = gain**2 * variance + noise
        assert gain * alpha + offset == pytest.approx(end_alpha, rel=1e-9)
        assert variance == pytest.approx(end_sigma**2, rel=1e-9, abs=1e-15)


# Configs


@pytest.mark.parametrize("cls", DISTILLED)
def test_made_of_stable_diffusions_config(cls: Any) -> None:
    """Fields that are not read keep their values, and change nothing."""
    ours = cls.from_config(STABLE_DIFFUSION)
    assert (ours.steps_offset, ours.set_alpha_to_one) == (1, False)
    np.testing.assert_array_equal(ours.table(4).mix, cls().table(4).mix)
    assert cls.from_config(ours.config) == ours
    assert cls.from_config(ours.config, original_inference_steps=25).table(25) is not None
    back = dj.PNDMScheduler.from_config(ours.config)
    assert back == dj.PNDMScheduler.from_config(STABLE_DIFFUSION)


@pytest.mark.parametrize("cls", DISTILLED)
def test_fields_that_are_not_read_are_refused_if_they_are_given(cls: Any) -> None:
    with pytest.raises(ValueError, match="steps_offset is not read by this method"):
        cls.from_config(STABLE_DIFFUSION, steps_offset=2)
    with pytest.raises(ValueError, match="timestep_spacing is not read"):
        cls(timestep_spacing="trailing")
    assert cls.from_config(STABLE_DIFFUSION, steps_offset=0).steps_offset == 0
    with pytest.raises(ValueError, match="steps_offset must be a whole number"):
        cls.from_config(STABLE_DIFFUSION | {"steps_offset": "1"})


def test_a_config_that_clips() -> None:
    """LCM clips as it says; TCD never does."""
    config = dj.DDIMScheduler(clip_sample=True, clip_sample_range=0.5).config
    clip = dj.LCMScheduler.from_config(config).table(4).refine
    assert isinstance(clip, dj.Clip)
    assert clip.limit == 0.5
    tcd = dj.TCDScheduler.from_config(config)
    assert tcd.clip_sample_range == 0.5
    assert tcd.table(4).refine is None
