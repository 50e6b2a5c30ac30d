"""`learn_table`: better than its start, resumable, and careful with what it is given."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ddpm_jax as dj
from ddpm_jax.learning import learn
from ddpm_jax.learning.space import space_of, table_of

SHAPE = (2, 2, 1)
KEYS = dj.sample_keys(jax.random.key(0), 40)
SCHEDULER = dj.DDIMScheduler(clip_sample=False, timestep_spacing="trailing")
START, TEACHER = SCHEDULER.table(3), SCHEDULER.table(100)
RATIO = np.log(SCHEDULER.noise_schedule.noise_ratio).astype(np.float32)


def denoise(means: Any, x: Any, timestep: Any) -> Any:
    """Exact for data at plus and minus `means`, to which each pixel falls by itself."""
    ratio = jnp.exp(jnp.interp(timestep, jnp.arange(1000.0), RATIO))
    alpha = (1 + ratio**2) ** -0.5
    sigma = alpha * ratio
    x0 = means * jnp.tanh(alpha * means * x / sigma**2)
    return (x - alpha * x0) / sigma


def conditional(params: Any, x: Any, timestep: Any) -> Any:
    return denoise(params["means"][:, None, None, None], x, timestep)


def error(table: dj.Table) -> float:
    keys = dj.sample_keys(jax.random.key(9), 64)
    x = dj.prior(TEACHER, keys, shape=SHAPE)
    means = jnp.float32(0.8)
    apart = dj.sample(denoise, means, table, x) - dj.sample(denoise, means, TEACHER, x)
    return float(jnp.square(apart).mean())


def learned(steps: int = 100, **options: Any) -> dj.Table:
    given = {"learning_rate": 0.02, "batch_size": 32, "progress": False} | options
    return dj.learn_table(denoise, jnp.float32(0.8), START, TEACHER, KEYS, SHAPE, steps, **given)


@pytest.fixture(scope="module")
def table() -> dj.Table:
    return learned()


def test_it_comes_closer_to_the_teacher(table: dj.Table) -> None:
    assert len(table) == len(START)
    assert error(table) < 0.2 * error(START)
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(table))


def test_a_run_is_the_same_again_and_goes_on(
    table: dj.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted after 70 updates and gone on with: every bit of the run that was left alone."""
    state, batch = tmp_path / "state.npz", learn._batch

    def interrupted(update: int, size: int, count: int) -> np.ndarray:
        if update == 70:
            raise KeyboardInterrupt
        return batch(update, size, count)

    with monkeypatch.context() as patch:
        patch.setattr(learn, "_batch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            learned(state=state)
    assert int(np.load(state)["leaf_0"]) == 70
    again = learned(state=state)
    for one, other in zip(jax.tree.leaves(again), jax.tree.leaves(table), strict=True):
        np.testing.assert_array_equal(one, other)
    # it is done: nothing is computed again
    monkeypatch.setattr(learn, "_update", None)
    learned(state=state)


def test_a_state_of_another_run_is_refused(tmp_path: Path) -> None:
    state = tmp_path / "state.npz"
    learned(steps=1, state=state)
    with pytest.raises(ValueError, match="another file"):
        learned(steps=2, state=state)
    whole = state.read_bytes()
    for damaged in (b"PK, or not", b"", whole[:200], whole[: len(whole) // 2]):
        state.write_bytes(damaged)
        with pytest.raises(ValueError, match="delete it to begin anew"):
            learned(steps=1, state=state)


def test_no_update_gives_the_start() -> None:
    np.testing.assert_allclose(error(learned(steps=0)), error(START), rtol=1e-2)


def test_a_harmful_run_gives_the_start() -> None:
    """What is worse on the images that are held out is not taken."""
    assert error(learned(steps=60, learning_rate=3.0)) <= 1.01 * error(START)


def sizes() -> list[int]:
    programs: list[Any] = [learn._update, learn._loss, table_of]
    return [program._cache_size() for program in programs]


def test_compilations() -> None:
    """One program for the updates, one for the tries; other numbers of steps compile nothing."""
    learned(steps=2)
    before = sizes()
    learned(steps=3, learning_rate=0.01)
    assert sizes() == before


@pytest.mark.slow
def test_conditions_follow_their_images() -> None:
    means = jnp.linspace(0.2, 1.0, len(KEYS))
    table = dj.learn_table(
        conditional, {"means": jnp.float32(0)}, START, TEACHER, KEYS, SHAPE, 100,
        conditions={"means": means}, learning_rate=0.02, progress=False,
    )  # fmt: skip
    assert error(table) < 0.5 * error(START)


@pytest.mark.slow
def test_the_loss_is_any_function_of_images() -> None:
    def first_pixel(images: Any, wanted: Any) -> Any:
        return jnp.abs(images - wanted)[:, 0, 0]

    assert error(learned(loss=first_pixel)) < error(START)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": -1}, "steps"),
        ({"batch_size": 0}, "batch_size"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"conditions": {"labels": np.zeros(3)}}, "dict"),
    ],
    ids=str,
)
def test_bad_numbers(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        learned(**options)


def test_bad_tables_and_keys() -> None:
    other = dj.EulerDiscreteScheduler().table(3)
    run = (denoise, jnp.float32(0.8))
    with pytest.raises(ValueError, match="trailing"):
        dj.learn_table(*run, START, other, KEYS, SHAPE, progress=False)
    with pytest.raises(ValueError, match="teacher must be deterministic"):
        dj.learn_table(*run, START, dj.DDPMScheduler().table(9), KEYS, SHAPE, progress=False)
    with pytest.raises(ValueError, match="at least 2"):
        dj.learn_table(*run, START, TEACHER, KEYS[:1], SHAPE, progress=False)
    with pytest.raises(ValueError, match="40 rows"):
        dj.learn_table(
            conditional, {}, START, TEACHER, KEYS, SHAPE, conditions={"means": np.zeros(3)},
            progress=False,
        )  # fmt: skip


@pytest.mark.slow
def test_gradients_are_those_without_remat() -> None:
    """`remat` changes memory, not numbers."""
    space = space_of(START, TEACHER)
    x = dj.prior(TEACHER, KEYS[:4], shape=SHAPE)

    def total(variables: Any, remat: bool) -> Any:
        images = dj.sample(denoise, jnp.float32(0.8), space.table(variables), x, remat=remat)
        return jnp.square(images - 0.3).sum()

    plain, again = (jax.grad(total)(space.zeros(), remat) for remat in (False, True))
    for one, other in zip(plain, again, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
        assert np.any(one != 0)
