"""Properties over the whole ranges of configs: spacings, schedules, tables, and `from_config`.

The tests of the matrix walk chosen configs; here Hypothesis draws any.
"""

import dataclasses
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import ddpm_jax as dj
from ddpm_jax.schedulers import SCHEDULERS
from ddpm_jax.tables.spacing import sigma_grid, timestep_grid

pytestmark = [
    pytest.mark.usefixtures("as_users_run"),
    pytest.mark.filterwarnings("ignore::UserWarning"),  # of fields that a config drops
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),  # of NumPy, before a table is refused
]
steady = settings(
    derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
beta = st.floats(1e-6, 0.5)


@settings(steady, max_examples=300)
@given(
    st.sampled_from(["leading", "trailing", "linspace", "quadratic"]),
    st.integers(1, 20_000),
    st.data(),
)
def test_timesteps_descend_within_the_training_range(
    spacing: Any, total: int, data: st.DataObject
) -> None:
    count = data.draw(st.integers(1, total))
    grid = timestep_grid(spacing, count, total)
    assert grid.shape == (count,)
    assert np.array_equal(grid, np.round(grid))
    assert 0 <= grid.min() <= grid.max() <= total - 1
    assert np.all(np.diff(grid) <= (0 if spacing == "quadratic" else -1))


@settings(steady, max_examples=200)
@given(
    st.sampled_from(["karras", "exponential", "beta"]),
    st.integers(2, 300),
    st.floats(1e-4, 1.0),
    st.floats(1.01, 1e5),
)
def test_noise_levels_descend_between_their_ends(
    spacing: Any, count: int, least: float, ratio: float
) -> None:
    most = least * ratio
    sigmas = sigma_grid(spacing, most, least, count)
    assert sigmas.shape == (count,)
    assert np.all(np.diff(sigmas) <= 1e-12 * most)
    assert most * (1 + 1e-9) >= sigmas[0]
    assert sigmas[-1] >= least * (1 - 1e-9)


@settings(steady, max_examples=200)
@given(
    st.sampled_from(["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid", "laplace"]),
    st.integers(1, 3000),
    beta,
    beta,
    st.booleans(),
)
def test_schedules_fall_from_the_data_to_noise(
    name: Any, steps: int, start: float, end: float, rescale: bool
) -> None:
    assume(not (rescale and steps < 2))
    try:
        schedule = dj.noise_schedule(
            name,
            num_train_timesteps=steps,
            beta_start=min(start, end),
            beta_end=max(start, end),
            rescale_betas_zero_snr=rescale,
        )
    except ValueError:
        # Of alpha_bar below 1e-60 the sum of -log(1 - beta) is above 138, and up to beta = 1/2 that
        # is at most 1.39 beta.
        assert name in ("linear", "scaled_linear", "sigmoid")
        assert steps * max(start, end) > 99
        return
    assert schedule.alpha_bar.shape == (steps,)
    assert np.all((schedule.alpha_bar >= 0) & (schedule.alpha_bar < 1))
    assert np.all(np.diff(schedule.alpha_bar) <= 0)
    np.testing.assert_allclose(np.hypot(schedule.alpha, schedule.sigma), 1, rtol=1e-14)
    assert not rescale or schedule.alpha_bar[-1] == 0


# Configs of all schedulers


def of_type(hint: Any) -> st.SearchStrategy[Any]:
    """Values of a field's type, over its whole range and beyond."""
    if get_origin(hint) is Literal:
        return st.sampled_from(get_args(hint))
    if get_args(hint):
        kinds = [kind for kind in get_args(hint) if kind in (int, float, bool, NoneType)]
        return st.one_of(*map(of_type, kinds)) if kinds else st.none()
    strategies: dict[Any, st.SearchStrategy[Any]] = {
        int: st.integers(-1, 50) | st.integers(),
        float: st.floats(0, 2) | st.floats(),
        bool: st.booleans(),
        NoneType: st.none(),
    }
    return strategies.get(hint, st.none())


@st.composite
def schedulers(draw: st.DrawFn) -> dj.Scheduler:
    """Any scheduler that its class accepts, a few of its fields drawn."""
    cls: Any = draw(st.sampled_from(SCHEDULERS))
    hints = get_type_hints(cls)
    names = [field.name for field in dataclasses.fields(cls) if field.name != "trained_betas"]
    chosen = draw(st.lists(st.sampled_from(names), max_size=4, unique=True))
    config = {name: draw(of_type(hints[name])) for name in chosen}
    if "num_train_timesteps" in config:
        config["num_train_timesteps"] = draw(st.integers(1, 2000))
    try:
        return cls(**config)
    except (ValueError, NotImplementedError):
        assume(False)
        raise


@settings(steady, max_examples=400)
@given(schedulers(), st.integers(1, 60))
def test_any_config_gives_a_sound_table_or_a_sentence(scheduler: Any, steps: int) -> None:
    try:
        table = scheduler.table(steps)
    except ValueError:
        return
    assert len(table) > 0
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(table))
    assert table.timestep.dtype == np.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(table)} == {np.dtype(np.float32)}
    assert np.all(table.level >= 0)
    alpha, sigma = table.level.T
    assert np.all(np.hypot(alpha, sigma) > 0)
    noise = table.noise_scale
    assert noise is None or (np.all(noise >= 0) and (table.log_var is not None or noise[-1] == 0))


@settings(steady, max_examples=300)
@given(schedulers())
def test_a_config_makes_the_same_scheduler_again(scheduler: Any) -> None:
    again = type(scheduler).from_config(scheduler.config)
    assert again == scheduler
    assert hash(again) == hash(scheduler)
    assert again.config == scheduler.config


# Networks

UNET: dict[str, st.SearchStrategy[Any]] = {
    "sample_size": st.none() | st.integers(1, 64) | st.tuples(st.integers(1, 64), st.just(8)),
    "in_channels": st.integers(0, 12),
    "out_channels": st.integers(1, 12),
    "layers_per_block": st.integers(0, 3),
    "norm_num_groups": st.integers(1, 8),
    "attention_head_dim": st.none() | st.integers(0, 16),
    "time_embedding_type": st.sampled_from(["positional", "fourier", "learned", "other"]),
    "num_train_timesteps": st.none() | st.integers(1, 100),
    "class_embed_type": st.sampled_from([None, "timestep", "identity", "projection"]),
    "num_class_embeds": st.none() | st.integers(1, 5),
    "act_fn": st.sampled_from(["silu", "mish", "gelu", "relu", "tanh"]),
    "add_attention": st.booleans(),
    "mid_block_type": st.sampled_from(["UNetMidBlock2D", None, "Other"]),
    "resnet_time_scale_shift": st.sampled_from(["default", "scale_shift"]),
    "downsample_type": st.sampled_from(["conv", "resnet"]),
    "mid_block_scale_factor": st.floats(-1, 2),
    "freq_shift": st.integers(0, 2),
    "dropout": st.floats(-0.1, 1.1),
}
BLOCKS = ("", "Attn")


@settings(steady, max_examples=300)
@given(st.data())
def test_any_config_of_a_unet_is_built_or_refused(data: st.DataObject) -> None:
    levels = data.draw(st.integers(1, 3))
    kinds = data.draw(st.lists(st.sampled_from(BLOCKS), min_size=levels, max_size=levels))
    config = {
        "block_out_channels": [8 * (i + 1) for i in range(levels)],
        "down_block_types": [f"{kind}DownBlock2D" for kind in kinds],
        "up_block_types": [f"{kind}UpBlock2D" for kind in kinds[::-1]],
        "norm_num_groups": 4,
    } | data.draw(st.fixed_dictionaries({}, optional=UNET))
    try:
        model = dj.UNet2DModel.from_config(config)
    except ValueError:
        return
    assert dj.UNet2DModel.from_config(model.config) == model
    assert {name: model.config[name] for name in ("in_channels", "add_attention")} == {
        "in_channels": config.get("in_channels", 3),
        "add_attention": config.get("add_attention", True),
    }
