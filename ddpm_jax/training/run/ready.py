"""A run before its next update: its state, fresh or restored, and what every update needs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
from tqdm.auto import tqdm

from ddpm_jax.training.data import Batches, make_batches
from ddpm_jax.training.run.checkpoint import Checkpoints
from ddpm_jax.training.run.evaluate import HeldOutLoss
from ddpm_jax.training.run.guards import Watch
from ddpm_jax.training.run.plan import Plan
from ddpm_jax.training.run.samples import Sampler
from ddpm_jax.training.sharding import gather_params, init_sharded
from ddpm_jax.training.state import TrainState
from ddpm_jax.training.step import make_train_step, make_train_steps, make_update


@dataclass(frozen=True, eq=False)
class Ready:
    """A run that can go on.

    Attributes:
        plan: what it was made from.
        checkpoints: where it is saved.
        batches: the input, at its position.
        state: after the updates so far; the train step donates it.
        step: how many they are.
        train_step: `(state, batch) -> (state, metrics)`, to compile.
        learning_rate: of update 0, 1, ...
        watch: what it has seen so far.
        sampler: draws the grids, or None.
        held_out: the held-out loss, or None.
    """

    plan: Plan
    checkpoints: Checkpoints
    batches: Batches
    state: TrainState
    step: int
    train_step: Any
    learning_rate: Callable[[int], Any]
    watch: Watch
    sampler: Sampler | None
    held_out: HeldOutLoss | None


def prepare(
    plan: Plan, checkpoints: Checkpoints, batches: Batches, *, resume: bool = False
) -> Ready:
    """Makes the first state, or restores the newest checkpoint's, and what updates need.

    Raises:
        ValueError: a damaged checkpoint, other images than it was trained on, or more updates
            done than asked for.
    """
    loop, optimizer = plan.settings.loop, plan.settings.optimizer
    transformation = optimizer.make(loop.steps)
    key, params_key = jax.random.split(jax.random.key(loop.seed))
    params, news = plan.params(params_key)
    if jax.process_index() == 0:
        for sentence in news:
            tqdm.write(sentence)
    state, shardings = init_sharded(params, transformation, key, plan.mesh)
    watch = Watch(loop.divergence)
    if resume and checkpoints.latest() is not None:
        state = _restored(state, plan, checkpoints, batches, watch)
    update = make_update(
        gather_params(plan.loss, shardings.params),
        transformation,
        plan.settings.ema,
        accumulate=loop.accumulate,
    )
    make = make_train_step if loop.steps_per_call == 1 else make_train_steps
    return Ready(
        plan=plan,
        checkpoints=checkpoints,
        batches=batches,
        state=state,
        step=int(state.step),
        train_step=make(update, shardings=shardings),
        learning_rate=optimizer.schedule(loop.steps),
        watch=watch,
        sampler=Sampler(plan) if loop.sample_every else None,
        held_out=HeldOutLoss(plan) if plan.settings.data.held_out else None,
    )


def input_batches(plan: Plan) -> Batches:
    """This process's part of the input."""
    return make_batches(
        plan.source,
        plan.settings.data,
        batch_size=plan.settings.loop.batch_size,
        seed=plan.settings.loop.seed,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )


def _restored(
    state: TrainState, plan: Plan, checkpoints: Checkpoints, batches: Batches, watch: Watch
) -> TrainState:
    found = checkpoints.restore(state)
    step, steps = int(found.state.step), plan.settings.loop.steps
    if step > steps:
        raise ValueError(f"{step} updates are done already, and loop.steps is {steps}")
    batches.restore(found.extra["input"])
    watch.restore(found.extra["watch"])
    return found.state
