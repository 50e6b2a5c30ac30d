"""The space of samplers: a start is found again, and its neighbours are consistent."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ddpm_jax as dj
from ddpm_jax.learning.space import Space, Variables, space_of, table_of
from tests.schedulers.propagate import propagate

TRAILING: dict[str, Any] = {"timestep_spacing": "trailing"}
STARTS: dict[str, dj.Table] = {
    "ddim": dj.DDIMScheduler(clip_sample=False, **TRAILING).table(5),
    "ddim of v": dj.DDIMScheduler(
        clip_sample=False, prediction_type="v_prediction", **TRAILING
    ).table(6),
    "ddim of x0": dj.DDIMScheduler(
        clip_sample=False, prediction_type="sample", set_alpha_to_one=False, **TRAILING
    ).table(4),
    "clipped": dj.DDIMScheduler(**TRAILING).table(5, use_clipped_model_output=True),
    "one row": dj.DDIMScheduler(clip_sample=False).table(1),
    "lms": dj.LMSDiscreteScheduler(use_karras_sigmas=True).table(6),
    "euler to sigma_min": dj.EulerDiscreteScheduler(
        final_sigmas_type="sigma_min", timestep_spacing="trailing"
    ).table(4),
}
TEACHER = dj.DDIMScheduler(clip_sample=False, **TRAILING).table(100)


def network(x: np.ndarray, i: int) -> np.ndarray:
    return np.sin(0.7 * x + i) + 0.3 * x


@pytest.mark.parametrize("name", STARTS)
def test_a_start_is_found_again(name: str) -> None:
    """As a path: its own registers may hold other things."""
    start = STARTS[name]
    space = space_of(start, TEACHER)
    again = jax.tree.map(np.asarray, table_of(space, space.zeros()))
    assert len(again) == len(start)
    for column in ("timestep", "level", "in_scale", "to_x0"):
        np.testing.assert_allclose(
            getattr(again, column), getattr(start, column), rtol=2e-5, atol=1e-6, err_msg=column
        )
    x = float(start.init_scale) * np.random.default_rng(0).standard_normal((2, 3, 3, 1))
    paths = zip(propagate(again, network, x), propagate(start, network, x), strict=True)
    for ours, theirs in paths:
        # float32 numbers; where alpha is 0.006, an x0 of a few hundred is added and taken away
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=2e-3)


def test_clipping_reads_eps_from_what_is_clipped() -> None:
    """Both kinds of DDIM start at the one that the space has."""
    scheduler = dj.DDIMScheduler(**TRAILING)
    tables = [scheduler.table(5, use_clipped_model_output=flag) for flag in (False, True)]
    plain, clipped = (space_of(table, TEACHER) for table in tables)
    np.testing.assert_allclose(plain.excess, clipped.excess, atol=2e-4)


def moved(space: Space) -> Variables:
    rng = np.random.default_rng(1)
    zeros = space.zeros()
    drawn = jnp.asarray(rng.normal(0, 0.3, (3, len(zeros.gaps))), jnp.float32)
    return Variables(drawn[0], drawn[1], drawn[2], zeros.weights)


@pytest.mark.parametrize("name", STARTS)
def test_neighbours_descend_and_keep_a_constant_prediction(name: str) -> None:
    """Whatever the grid, weights without a correction add up to one."""
    space = space_of(STARTS[name], TEACHER)
    table = jax.tree.map(np.asarray, table_of(space, moved(space)))
    assert np.all(np.diff(table.level[:, 1] / table.level[:, 0]) < 0)
    assert table.timestep.min() >= 0
    assert table.timestep.max() <= 999
    x0, eps = 0.4, -1.1

    def constant(_: np.ndarray, i: int) -> np.ndarray:
        a, s = table.to_x0[i]
        x = table.level[i] @ (x0, eps)
        return np.full((1, 1, 1, 1), (x0 - a * x) / s)

    x = np.full((1, 1, 1, 1), table.level[0] @ (x0, eps))
    end = propagate(table, constant, x)[-1].item()
    assert abs(end - space.end @ (x0, eps)) < 2e-3


def test_timesteps_follow_the_levels_between_those_of_the_tables() -> None:
    space = space_of(STARTS["ddim"], TEACHER)
    table = table_of(space, space.zeros()._replace(gaps=jnp.array([0.5, 0, -0.5, 0, 0.2])))
    ratio = dj.noise_schedule("linear").noise_ratio
    found = np.interp(np.asarray(table.timestep), np.arange(1000), np.log(ratio))
    wanted = np.log(np.asarray(table.level[:, 1] / table.level[:, 0]))
    np.testing.assert_allclose(found, wanted, atol=0.02)  # the teacher's stride is 10 timesteps


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (dj.DDPMScheduler().table(5), "deterministic"),
        (dj.PNDMScheduler().table(5), "descend strictly"),
        (dj.HeunDiscreteScheduler().table(5), "descend strictly"),
        (dj.DDIMScheduler(set_alpha_to_one=False).table(5), "descend strictly"),
    ],
    ids=["noise", "stages", "repeats", "ends where its last row is"],
)
def test_what_is_no_point_of_the_space(start: dj.Table, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        space_of(start, TEACHER)


def replaced(**columns: Any) -> dj.Table:
    import dataclasses

    return dataclasses.replace(STARTS["ddim"], **columns)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (replaced(mix=STARTS["ddim"].mix * 1.1), "does not keep eps"),
        (replaced(to_x0=STARTS["ddim"].to_x0 * 0.9), "in a way that is not one of"),
        (replaced(in_scale=np.full(5, 0.3, np.float32)), "input scales"),
        (replaced(level=STARTS["ddim"].level * 0.5), "no known kind"),
    ],
    ids=["mix", "to_x0", "in_scale", "level"],
)
def test_inconsistent_tables_are_refused(table: dj.Table, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        space_of(table, TEACHER)
