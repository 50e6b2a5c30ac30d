"""A training run: the loop around the compiled step, and what it leaves in its folder.

    settings.json      all settings                  log.jsonl, tensorboard/   the numbers
    checkpoints/       to resume from                samples/000500.png        grids of samples
    curve.png          the loss                      model_index.json, unet/, scheduler/
                                                     the result, as diffusers loads it
                                                     id2label.json             its classes' names

The loop stays ahead of the device: the numbers of an update are read when two more are running.
Before a checkpoint all are read, so that every checkpoint is good.
"""

import signal
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm.auto import tqdm

from ddpm_jax.training.data.batches import check_main_guard
from ddpm_jax.training.run.checkpoint import Checkpoints
from ddpm_jax.training.run.export import export
from ddpm_jax.training.run.guards import (
    Stop,
    Trace,
    TrainingError,
    compiled,
    explained,
    locked,
    stop_on_signals,
)
from ddpm_jax.training.run.logs import TENSORBOARD, Log, draw_curve
from ddpm_jax.training.run.plan import CHECKPOINTS, SETTINGS_NAME, Plan, check_folder
from ddpm_jax.training.run.ready import Ready, input_batches, prepare
from ddpm_jax.training.run.samples import save_image
from ddpm_jax.training.sharding import fetch, place_batch

AHEAD = 2
"""Calls under way before the numbers of an earlier one are read. With one running and one waiting
behind it the device never waits for Python; more would only delay the check of the loss."""


class Outcome(NamedTuple):
    """How a run ended.

    Attributes:
        step: updates in all.
        stopped: None, or the signal that ended it early.
        compilations: of the train step: 1, or 0 if there was no update left to do.
    """

    step: int
    stopped: signal.Signals | None
    compilations: int


@dataclass
class Interval:
    """Sums since the last line of the log."""

    began: float
    waited: float = 0.0
    updates: int = 0
    loss: float = 0.0
    grad_norm: float = 0.0


class Call(NamedTuple):
    """A call of the train step whose numbers were not read yet."""

    step: int
    metrics: Mapping[str, jax.Array]
    indices: np.ndarray


def train(plan: Plan, *, resume: bool = False, progress: bool = True) -> Outcome:
    """Trains to the last step, or until SIGTERM or Ctrl-C, and writes the result.

    Args:
        plan: by `make_plan`.
        resume: go on from the newest checkpoint, if there is one; the result is the one that an
            uninterrupted run has, bit for bit on one device.
        progress: show a bar.

    Raises:
        ValueError: the folder holds another run, or this one and it is not to be resumed, or it is
            under way there; or it has done more updates than `loop.steps`.
        TrainingError: the loss is not finite, or diverges.
        OSError: something cannot be written; what was complete before is kept.
        MemoryError: an update does not fit into memory.
    """
    check_folder(plan.out, plan.settings, resume=resume)
    return train_checked(plan, resume=resume, progress=progress)


def train_checked(plan: Plan, *, resume: bool, progress: bool = True) -> Outcome:
    """`train` in a folder that `check_folder` has seen."""
    check_main_guard()
    loop, settings = plan.settings.loop, plan.out / SETTINGS_NAME
    main = jax.process_index() == 0  # the process that writes
    with explained(plan.out, loop), ExitStack() as stack:
        plan.out.mkdir(parents=True, exist_ok=True)
        if main:
            stack.enter_context(locked(plan.out))
            if not settings.exists():  # first of all: by it a folder is known as a run's
                plan.settings.save(settings)
        saved = stack.enter_context(
            Checkpoints(plan.out / CHECKPOINTS, keep_last=loop.keep_last, keep_best=loop.keep_best)
        )
        batches = input_batches(plan)
        stack.callback(batches.close)
        ready = prepare(plan, saved, batches, resume=resume)
        log = stack.enter_context(Log(plan.out, ready.step)) if main else None
        if main:
            plan.settings.save(settings)  # of a resumed run, now that it does go on
        stop = stack.enter_context(stop_on_signals())
        run = Run(ready, log, progress=progress and main)
        stack.enter_context(run.bar)
        run.loop(stop)
        ema, params = fetch((run.state.ema, run.state.params))
        if main:
            export(plan.out, plan.model, plan.scheduler, ema, params, plan.classes)
            draw_curve(plan.out)
    return Outcome(run.step, stop.signal, int(run.program is not None))


class Run:
    """A run under way: what changes with every update.

    Args:
        ready: by `prepare`.
        log: where numbers go; None in all processes but the first.
        progress: show a bar.
    """

    def __init__(self, ready: Ready, log: Log | None, *, progress: bool):
        self.ready, self.log, self.settings = ready, log, ready.plan.settings.loop
        self.state, self.step = ready.state, ready.step
        self.program: Any = None  # the compiled step
        self.under_way: deque[Call] = deque()
        self.held_out_loss: tuple[int, float] | None = None  # and the step that it is of
        self.bar = tqdm(
            total=self.settings.steps, initial=self.step, disable=not progress, unit="update"
        )
        self.interval = Interval(time.perf_counter())

    def loop(self, stop: Stop) -> None:
        """Updates until the last, or until a signal; then a checkpoint."""
        loop, saved = self.settings, self.step
        trace = Trace(self.ready.plan.out / TENSORBOARD, self.step, loop.profile)
        while self.step < loop.steps and not stop.agreed(self.step):
            trace.at(self.step)
            self.update()
            if self.step % loop.log_every == 0:
                self._write_log()
            if self.ready.sampler is not None and self.step % loop.sample_every == 0:
                self._sample()
            if self.ready.held_out is not None and self.step % loop.eval_every == 0:
                self._evaluate()
            if self.step % loop.save_every == 0:
                self._save()
                saved = self.step
        trace.end()
        self.settle()
        if self.interval.updates:
            self._write_log()
        if saved != self.step:
            self._save()

    def update(self) -> None:
        """One call of the step; its numbers are read later, see `settle`."""
        several = self.settings.steps_per_call > 1
        began = time.perf_counter()
        batches = [next(self.ready.batches) for _ in range(self.settings.steps_per_call)]
        self.interval.waited += time.perf_counter() - began
        indices = np.stack([batch.pop("index") for batch in batches])
        batch = jax.tree.map(lambda *x: np.stack(x), *batches) if several else batches[0]
        placed = place_batch(batch, self.ready.plan.mesh, stacked=several)
        if self.program is None:
            # Compiled once, ahead of the call: other shapes or shardings are then an error, and
            # never another compilation.
            self.bar.set_description("compiling")
            self.program = compiled(self.ready.train_step.lower(self.state, placed))
            self.bar.set_description()
        self.state, metrics = self.program(self.state, placed)
        self.step += self.settings.steps_per_call
        self.under_way.append(Call(self.step, metrics, indices))
        self.settle(AHEAD)
        self.bar.update(self.settings.steps_per_call)

    def settle(self, left: int = 0) -> None:
        """Reads numbers until this many calls are left unread."""
        while len(self.under_way) > left:
            call = self.under_way.popleft()
            host = {name: np.atleast_1d(np.asarray(v)) for name, v in call.metrics.items()}
            first = call.step - len(call.indices) + 1
            for i, indices in enumerate(call.indices):
                numbers = {name: float(values[i]) for name, values in host.items()}
                try:
                    self.ready.watch.see(first + i, numbers, indices.tolist())
                except TrainingError as error:
                    raise TrainingError(f"{error}; {self._last_good()}") from None
                self.interval.updates += 1
                self.interval.loss += numbers["loss"]
                self.interval.grad_norm += numbers["grad_norm"]

    def _last_good(self) -> str:
        step, folder = self.ready.checkpoints.latest(), self.ready.checkpoints.folder
        if step is None:
            return "there is no checkpoint"
        return f"the last good checkpoint is {folder / str(step)}"

    def _write_log(self) -> None:
        self.settle()
        past, now = self.interval, time.perf_counter()
        seconds = now - past.began
        numbers = {
            "loss": past.loss / past.updates,
            "grad_norm": past.grad_norm / past.updates,
            "learning_rate": float(self.ready.learning_rate(self.step - 1)),
            "images_per_second": past.updates * self.settings.batch_size / seconds,
            "input_share": past.waited / seconds,
        }
        if self.log is not None:
            self.log.write(self.step, numbers)
        self.bar.set_postfix(
            loss=f"{numbers['loss']:.4f}",
            lr=f"{numbers['learning_rate']:.1e}",
            grad=f"{numbers['grad_norm']:.2g}",
            img_s=f"{numbers['images_per_second']:.0f}",
        )
        self.interval = Interval(time.perf_counter())

    @contextmanager
    def _paused(self, why: str) -> Iterator[None]:
        """The interval's clock stands still, and the bar says why it does too."""
        self.settle()
        began = time.perf_counter()
        self.bar.set_description(why)
        yield
        self.bar.set_description()
        self.interval.began += time.perf_counter() - began

    def _sample(self) -> None:
        assert self.ready.sampler is not None
        with self._paused("samples"):
            grid = self.ready.sampler.grid(self.state.ema)
            if self.log is not None:
                save_image(grid, self.ready.plan.out / "samples" / f"{self.step:06d}.png")
                self.log.image(self.step, "samples", grid)

    def _evaluate(self) -> None:
        assert self.ready.held_out is not None
        with self._paused("held-out loss"):
            loss = self.ready.held_out.loss(self.state.ema)
            self.held_out_loss = self.step, loss
            if self.log is not None:
                self.log.write(self.step, {"held_out_loss": loss})

    def _save(self) -> None:
        with self._paused("checkpoint"):
            extra = {"input": self.ready.batches.state(), "watch": self.ready.watch.state()}
            step, loss = self.held_out_loss or (None, None)
            self.ready.checkpoints.save(
                self.state, extra, held_out=loss if step == self.step else None
            )
