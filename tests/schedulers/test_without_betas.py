"""Schedulers whose levels are given by sigma."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import ddpm_jax as dj
from tests.schedulers.ideal import process
from tests.schedulers.matrix import FAMILIES
from tests.schedulers.propagate import moments

OTHERS = [family.cls for family in FAMILIES if not family.has_betas]
CLASSES = pytest.mark.parametrize("cls", OTHERS, ids=lambda cls: cls.__name__)
COLUMNS = ("timestep", "level", "in_scale", "mix", "to_x0", "noise_scale", "init_scale")

# What the network is told at sigma 0.5: log(0.5) / 4 of Karras et al. 2022, 250 log(0.5) in the
# code of Song et al. 2023, T sigma in flow matching, and sigma.
TOLD = {
    "edm": -0.17328679513998632,
    "consistency": -173.28679513998632,
    "flow": 500.0,
    "score": 0.5,
    "slope": 0.5,
    "velocity": 1 / 3,
}


def without_churn(cls: Any) -> Any:
    return cls(s_churn=0.0) if hasattr(cls, "s_churn") else cls()


def same(one: dj.Table, other: dj.Table, rtol: float = 0.0) -> None:
    for name in COLUMNS:
        a, b = getattr(one, name), getattr(other, name)
        if a is not None:
            np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol, err_msg=name)


# Grids.


@CLASSES
def test_sigmas_are_the_levels(cls: Any) -> None:
    last = 0.002 if process(cls) == "consistency" else 0.0
    table = without_churn(cls).table(sigmas=[0.9, 0.5, 0.1, last], dtype=np.float64)
    here = table.level[table.timestep == np.float32(TOLD[process(cls)])]
    assert {float(sigma) for _, sigma in here} == {0.5}
    assert sorted({float(sigma) for _, sigma in table.level}) == [0.1, 0.5, 0.9]
    alpha, sigma = table.level.T
    expected = {"flow": 1 - sigma, "velocity": np.sqrt(1 - sigma**2)}.get(process(cls), 1.0)
    np.testing.assert_allclose(alpha, expected, rtol=1e-15)


@CLASSES
def test_sigmas_of_a_run_are_that_run(cls: Any) -> None:
    scheduler = without_churn(cls)
    table = scheduler.table(10, dtype=np.float64)
    *sigmas, last = (*dict.fromkeys(table.level[:, 1].tolist()), 0.0)
    end = max(last, scheduler.sigma_min if process(cls) == "consistency" else 0.0)
    if process(cls) != "score":  # its timesteps are those of times that end a little earlier
        same(table, scheduler.table(sigmas=[*sigmas, end], dtype=np.float64), rtol=1e-12)


@pytest.mark.parametrize(
    "cls", [cls for cls in OTHERS if process(cls) != "consistency"], ids=lambda cls: cls.__name__
)
def test_timesteps_are_what_the_network_is_told(cls: Any) -> None:
    scheduler = without_churn(cls)
    by_sigma = scheduler.table(sigmas=[0.9, 0.5, 0.1, 0.0], dtype=np.float64)
    told = list(dict.fromkeys(by_sigma.timestep.tolist()))
    # timesteps of a table are float32
    same(scheduler.table(timesteps=told, dtype=np.float64), by_sigma, rtol=1e-6)


@CLASSES
@pytest.mark.parametrize("start", [0, 4])
def test_prior(cls: Any, start: int) -> None:
    """diffusers' init_noise_sigma, of the level where a run begins."""
    table = without_churn(cls).table(10, start=start, dtype=np.float64)
    alpha, sigma = table.level[0]
    unit_data = process(cls) in ("edm", "flow", "velocity")
    assert table.init_scale == pytest.approx(np.hypot(alpha, sigma) if unit_data else sigma)


@CLASSES
def test_add_noise(cls: Any) -> None:
    scheduler, x0, noise = cls(), jnp.full((1, 2, 2, 1), 0.5), jnp.full((1, 2, 2, 1), -1.0)
    if process(cls) == "slope":
        with pytest.raises(ValueError, match="KarrasVeScheduler has no timesteps of training"):
            scheduler.add_noise(x0, noise, 0)
        return
    sigmas = [float((0.5 - scheduler.add_noise(x0, noise, t)).max()) for t in (0, 10, 39)]
    assert sigmas == sorted(sigmas, reverse=process(cls) == "consistency")


# EDM.


def test_a_run_that_stays_at_sigma_min() -> None:
    table = dj.EDMEulerScheduler(final_sigmas_type="sigma_min").table(5, dtype=np.float64)
    assert len(table) == 5
    np.testing.assert_array_equal(table.mix[-1, 0], [1, 0])


def test_edm_and_edm_with_v_differ_by_the_sign_of_the_output() -> None:
    eps, v = (
        dj.EDMEulerScheduler(prediction_type=p).table(5, dtype=np.float64)
        for p in ("epsilon", "v_prediction")
    )
    np.testing.assert_array_equal(eps.mix * [1, -1], v.mix)


# Consistency models.


def test_places_in_the_levels_of_training() -> None:
    """diffusers' timesteps=[22, 0]: place 0 is the noisiest and is visited first."""
    scheduler = dj.CMStochasticIterativeScheduler()
    table = scheduler.table(timesteps=[22, 0], dtype=np.float64)
    whole = scheduler.table(40, dtype=np.float64)
    np.testing.assert_array_equal(table.level, whole.level[[0, 22]])
    assert table.noise_scale[-1] == 0


def test_one_step_draws_no_noise() -> None:
    assert dj.CMStochasticIterativeScheduler().table(1).noise_scale.tolist() == [0]


def test_below_sigma_min_there_is_no_consistency() -> None:
    with pytest.raises(ValueError, match="at least sigma_min"):
        dj.CMStochasticIterativeScheduler().table(sigmas=[80.0, 0.0])


# Flow matching.


def test_mu_of_a_size() -> None:
    scheduler = dj.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    assert [scheduler.mu_of(tokens) for tokens in (256, 4096)] == pytest.approx([0.5, 1.15])
    assert scheduler.mu_of(2176) == pytest.approx((0.5 + 1.15) / 2)


def test_a_shift_by_mu() -> None:
    """sigma / (1 - sigma) is multiplied by exp(mu), or by mu."""
    even = np.linspace(1, 1 / 1000, 6)[1:]
    for kind, mu in (("exponential", np.log(3)), ("linear", 3.0)):
        scheduler = dj.FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True, time_shift_type=kind
        )
        sigma = scheduler.table(6, mu=mu, start=1, dtype=np.float64).level[:, 1]
        np.testing.assert_allclose(sigma / (1 - sigma), 3 * even / (1 - even), rtol=1e-12)


def test_mu_is_needed_or_refused() -> None:
    dynamic = dj.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    with pytest.raises(ValueError, match="use_dynamic_shifting needs mu"):
        dynamic.table(5)
    with pytest.raises(ValueError, match="mu needs use_dynamic_shifting"):
        dj.FlowMatchEulerDiscreteScheduler().table(5, mu=1.0)
    with pytest.raises(ValueError, match="leave out sigmas or mu"):
        dynamic.table(sigmas=[1.0, 0.5, 0.0], mu=1.0)
    assert len(dynamic.table(sigmas=[1.0, 0.5, 0.0])) == 2
    linear = dataclasses.replace(dynamic, time_shift_type="linear")
    for scheduler, mu in ((dynamic, float("nan")), (dynamic, True), (linear, 0.0)):
        with pytest.raises(ValueError, match="mu must be a number"):
            scheduler.table(5, mu=mu)


def test_inverted_sigmas() -> None:
    """The network's time runs backwards and its output changes sign; the path is the same."""
    plain, inverted = (
        dj.FlowMatchEulerDiscreteScheduler(invert_sigmas=flag, shift=3.0).table(5, dtype=np.float64)
        for flag in (False, True)
    )
    np.testing.assert_array_equal(plain.level, inverted.level)
    np.testing.assert_allclose(plain.timestep + inverted.timestep, 1000, rtol=1e-6)
    np.testing.assert_allclose(plain.mix * [1, -1], inverted.mix, rtol=1e-14)
    with pytest.raises(ValueError, match="timesteps ascend with invert_sigmas"):
        dj.FlowMatchEulerDiscreteScheduler(invert_sigmas=True).table(timesteps=[3, 2])


def test_a_terminal_level() -> None:
    scheduler = dj.FlowMatchEulerDiscreteScheduler(shift_terminal=0.1, shift=2.0)
    assert scheduler.table(7, dtype=np.float64).level[-1, 1] == pytest.approx(0.1, rel=1e-14)
    assert scheduler.table(1).level[:, 1].tolist() == [1]


# The variance-exploding SDE.


def test_the_corrector_leaves_its_stationary_variance() -> None:
    """Langevin steps of size h = 2 snr^2 sigma^2 end at sigma^2 / (1 - snr^2): Euler's bias."""
    scheduler = dj.ScoreSdeVeScheduler(snr=0.3, correct_steps=200)
    table = scheduler.table(sigmas=[5.0, 0.0], dtype=np.float64)
    answers = [(-1 / 5.0**2, 1 / 5.0**2)] * len(table)  # -(x - x0) / sigma^2, a point's score
    for std in (1.0, 20.0):
        _, variance = moments(table, answers, 1.0, std**2)[-2]
        assert variance == pytest.approx(5.0**2 / (1 - 0.3**2), rel=1e-9)


def test_times_and_levels_stay_together() -> None:
    scheduler = dj.ScoreSdeVeScheduler(sampling_eps=0.1)
    assert len(scheduler.table(10)) == 20
    assert scheduler.table(1).level[0].tolist() == [1, 1348]
    with pytest.raises(ValueError, match=r"sampling_eps must be below 1 / .* = 0.1"):
        scheduler.table(11)


def test_the_network_is_told_sigma() -> None:
    """The first is sigma_max; the last is the level's but for the end of time at 1e-5."""
    table = dj.ScoreSdeVeScheduler(correct_steps=0).table(10, dtype=np.float64)
    ratio = table.timestep / table.level[:, 1]
    np.testing.assert_allclose(ratio, 134800 ** (1e-5 * np.arange(10) / 9), rtol=1e-6)


# Karras et al.'s VE levels.


def test_levels_have_one_ratio() -> None:
    """Karras et al. 2022, Table 1: sigma^2 goes from 100^2 to 0.02^2 in even ratios."""
    table = dj.KarrasVeScheduler(s_churn=0.0).table(5, dtype=np.float64)
    sigma = table.level[::2, 1]
    np.testing.assert_allclose(sigma[[0, -1]], [100, 0.02], rtol=1e-14)
    np.testing.assert_allclose(sigma[1:] / sigma[:-1], 0.0002**0.25, rtol=1e-13)
    assert table.noise_scale is None


def test_churn_of_the_config() -> None:
    """Up to sqrt(2) of a level inside the limits; the first level, 100, lies outside."""
    table = dj.KarrasVeScheduler().table(5, dtype=np.float64)
    plain = dj.KarrasVeScheduler(s_churn=0.0).table(5, dtype=np.float64)
    raised = table.level[::2, 1] / plain.level[::2, 1]
    inside = (plain.level[::2, 1] >= 0.05) & (plain.level[::2, 1] <= 50)
    np.testing.assert_allclose(raised, np.where(inside, np.sqrt(2), 1), rtol=1e-14)
    np.testing.assert_array_equal(table.timestep, table.level[:, 1].astype(np.float32))


# Configs.


@CLASSES
def test_other_processes_do_not_take_its_config(cls: Any) -> None:
    with pytest.raises(ValueError, match=f"a {cls.__name__}, in whose place DDIMScheduler"):
        dj.DDIMScheduler.from_config(cls().config)
    with pytest.raises(ValueError, match=f"a DDPMScheduler, in whose place {cls.__name__}"):
        cls.from_config(dj.DDPMScheduler().config)


def test_a_class_of_the_users_own_is_taken() -> None:
    class Mine(dj.DDPMScheduler):
        pass

    assert dj.DDIMScheduler.from_config(Mine(steps_offset=1).config).steps_offset == 1


def test_an_inverted_flow_needs_the_field() -> None:
    config = dj.FlowMatchEulerDiscreteScheduler(shift=3.0, invert_sigmas=True).config
    with pytest.raises(ValueError, match="has no invert_sigmas"):
        dj.FlowMatchHeunDiscreteScheduler.from_config(config)
    plain = dj.FlowMatchEulerDiscreteScheduler(shift=3.0, base_shift=0.4)
    heun = dj.FlowMatchHeunDiscreteScheduler.from_config(plain.config)
    assert heun.shift == 3
    assert dj.FlowMatchEulerDiscreteScheduler.from_config(heun.config) == plain


# IPNDM.


def test_levels_of_ipndm() -> None:
    """sin^2 of even steps from a right angle; what the network is told is the angle of a level."""
    table = dj.IPNDMScheduler().table(3, dtype=np.float64)
    np.testing.assert_allclose(table.level[:, 1], [1, 3 / 4, 1 / 4], rtol=1e-14)
    np.testing.assert_allclose(np.hypot(*table.level.T), 1, rtol=1e-14)
    angles = np.arctan2(table.level[:, 1], table.level[:, 0])
    np.testing.assert_allclose(table.timestep, 2 / np.pi * angles, rtol=1e-6)


def test_given_sigmas_are_the_run_of_ipndm() -> None:
    sigmas = (1.0, 0.8, 0.3, 0.05)
    scheduler = dj.IPNDMScheduler(trained_betas=sigmas, num_train_timesteps=3)
    table = scheduler.table(3, dtype=np.float64)
    same(table, dj.IPNDMScheduler().table(sigmas=list(sigmas), dtype=np.float64))
    assert table.level[:, 1].tolist() == [1.0, 0.8, 0.3]
    with pytest.raises(ValueError, match="num_inference_steps must be 3"):
        scheduler.table(2)
    x0, noise = np.full((2, 1, 1, 1, 1), [[[[[0.5]]]], [[[[-1.0]]]]], np.float32)
    noised = [float(scheduler.add_noise(x0, noise, t).item()) for t in range(3)]
    expected = [np.sqrt(1 - s**2) * 0.5 - s for s in (0.3, 0.8, 1.0)]
    np.testing.assert_allclose(noised, expected, rtol=1e-6)


def test_ipndm_begins_with_ddim_and_ends_with_fourth_order() -> None:
    table = dj.IPNDMScheduler().table(6, dtype=np.float64)
    reads = [np.count_nonzero(mix[0, 1:4]) for mix in table.mix]
    assert reads == [0, 1, 2, 3, 3, 3]
    *sigmas, end = (*table.level[2:, 1], 0.0)
    rest = dj.IPNDMScheduler().table(sigmas=[*sigmas, end], dtype=np.float64)
    same(dj.IPNDMScheduler().table(6, start=2, dtype=np.float64), rest)
    np.testing.assert_allclose(table.mix[0, 0], [table.level[1, 1], 0, 0, 0, -table.level[1, 0]])
