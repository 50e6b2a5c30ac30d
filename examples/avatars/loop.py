"""The loop of both trainings: updates, a line of progress, and checkpoints to resume from."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ddpm_jax.training import TrainState
from ddpm_jax.training.run.checkpoint import Checkpoints
from ddpm_jax.training.step import Update

SAVE_SECONDS, LOG_UPDATES = 45, 100


def run(
    folder: Path, state: TrainState, update: Update, batch_of: Callable[[int], Any], steps: int
) -> TrainState:
    """Trains for `steps` updates, and goes on where a run in this folder was killed.

    Args:
        folder: for the checkpoints, of which one is written every 45 seconds.
        state: the first one.
        update: compiled.
        batch_of: the batch of update 0, 1, ...; the same whenever it is called.
        steps: in all.
    """
    # On a named device, as a restored one is: the update is compiled for the one or the other.
    state = jax.device_put(state, jax.devices()[0])
    with Checkpoints(folder / "checkpoints") as checkpoints:
        if checkpoints.latest() is not None:
            state = checkpoints.restore(state).state
        losses, began, saved = [], time.perf_counter(), time.perf_counter()
        for step in range(int(state.step), steps):
            state, metrics = update(state, batch_of(step))
            losses.append(float(metrics["loss"]))
            now, done, last = time.perf_counter(), step + 1, step + 1 == steps
            if done % LOG_UPDATES == 0 or last:
                loss, speed = np.mean(losses), len(losses) / (now - began)
                print(f"{done} of {steps}: loss {loss:.5f}, {speed:.2f} updates/s", flush=True)
                losses, began = [], now
            if now - saved > SAVE_SECONDS or last:
                checkpoints.save(state, {})
                saved = now
    return state


def shuffled(count: int, size: int, seed: int, step: int) -> np.ndarray:
    """The `size` places in 0..count-1 of update `step`: each once in a pass, in an order of its
    own for each pass."""
    per_pass = count // size
    order = np.random.default_rng((seed, step // per_pass)).permutation(count)
    return order[step % per_pass * size :][:size]


def in_parts(count: int, size: int) -> Iterator[slice]:
    """Slices of at most `size` that cover 0..count-1."""
    return (slice(begin, begin + size) for begin in range(0, count, size))
