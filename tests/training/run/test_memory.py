"""The estimate of an update's memory, beside the compiler's own figure."""

from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from ddpm_jax.training import init_state, make_train_step, make_update
from ddpm_jax.training.data import Data
from ddpm_jax.training.run import memory
from ddpm_jax.training.run.plan import Plan, make_plan
from ddpm_jax.training.run.presets import PRESETS
from ddpm_jax.training.run.settings import Loop, Settings

SMALL = replace(
    PRESETS["tiny"],
    model=replace(
        PRESETS["tiny"].model,
        down_block_types=("AttnDownBlock2D",),
        up_block_types=("AttnUpBlock2D",),
        block_out_channels=(32,),
        layers_per_block=1,
    ),
)
PLAIN = replace(
    SMALL,
    model=replace(
        SMALL.model,
        down_block_types=("DownBlock2D",),
        mid_block_type=None,
        up_block_types=("UpBlock2D",),
    ),
)
"""Traced in half the time."""


def activations(plan: Plan, images: int) -> int:
    labels = plan.source.labels is not None
    shapes, shape = plan.model.shapes(), plan.source.shape
    return memory.activation_bytes(plan.loss, shapes, shape, images, labels=labels)


@pytest.mark.usefixtures("as_users_run")
@pytest.mark.parametrize(
    "settings",
    [SMALL, pytest.param(PRESETS["tiny"], marks=pytest.mark.slow)],
    ids=["small", "tiny"],
)
def test_it_is_near_the_compilers_figure(settings: Settings, tmp_path: Path):
    plan = make_plan(settings, tmp_path)
    optimizer, key = plan.settings.optimizer.make(10), jax.random.key(0)
    state = jax.eval_shape(lambda params: init_state(params, optimizer, key), plan.model.shapes())
    batch = {"image": jax.ShapeDtypeStruct((64, 8, 8, 1), jnp.float32)}
    program = make_train_step(make_update(plan.loss, optimizer)).lower(state, batch).compile()
    needed = program.memory_analysis().temp_size_in_bytes
    assert 0.6 < needed / activations(plan, 64) < 1.2


def test_it_grows_with_the_images_and_takes_labels(tmp_path: Path):
    plan = make_plan(replace(PLAIN, data=Data(name="digits", labels=True)), tmp_path)
    few, more, most = (activations(plan, images) for images in (16, 32, 64))
    assert most - more == pytest.approx(2 * (more - few), rel=0.01)


def test_a_batch_that_does_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The sentence names sizes that fit, and with them nothing is said."""
    large = replace(PLAIN, data=Data(name="digits", resolution=32))
    devices = jax.device_count()
    large = replace(large, loop=replace(large.loop, batch_size=16 * devices))
    monkeypatch.setattr(memory, "device_memory", lambda: 60_000_000)
    monkeypatch.setattr(memory, "SMALL", 0)
    with pytest.warns(UserWarning, match="on each device, which has 0.1 GB") as caught:
        plan = make_plan(large, tmp_path)

    def said(**fields: int) -> str | None:
        loop, shapes = replace(large.loop, **fields), plan.model.shapes()
        return memory.too_large(plan.loss, shapes, plan.source.shape, loop, devices=devices)

    words = str(caught[0].message)
    parts, size = (
        int(words.split(word)[1].split()[0]) for word in ("accumulate ", "batch_size of ")
    )
    assert size < large.loop.batch_size
    assert said(accumulate=parts) is said(batch_size=size) is None
    assert "fits" in str(said(accumulate=parts // 2))
    assert "fits" in str(said(batch_size=2 * size))
    monkeypatch.setattr(memory, "device_memory", lambda: 1_000_000)
    assert "not even one image fits" in str(said())


def test_a_device_of_unknown_memory_and_a_small_batch_are_not_traced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    plan = make_plan(PLAIN, tmp_path)

    def traced(*_args: object, **_kwargs: object) -> int:
        raise AssertionError

    monkeypatch.setattr(memory, "activation_bytes", traced)
    shapes, loop = plan.model.shapes(), Loop(batch_size=10**6)
    monkeypatch.setattr(memory, "device_memory", lambda: None)
    assert memory.too_large(plan.loss, shapes, (8, 8, 1), loop, devices=1) is None
    monkeypatch.setattr(memory, "device_memory", lambda: 1)
    small = Loop(batch_size=8)
    assert memory.too_large(plan.loss, shapes, (8, 8, 1), small, devices=1) is None
    with pytest.raises(AssertionError):
        memory.too_large(plan.loss, shapes, (8, 8, 1), loop, devices=1)


def test_a_cpus_memory_is_the_machines():
    share = memory.device_memory()
    assert share is not None
    assert 10**8 < share * jax.local_device_count() < 10**14
