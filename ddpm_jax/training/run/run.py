"""A training run: the loop around the compiled step, and what it leaves in its folder.

    settings.json      all settings                  log.jsonl, tensorboard/   the numbers
    checkpoints/       to resume from                samples/000500.png        grids of samples
    curve.png          the loss                      model_index.json, unet/, scheduler/
                                                     the result, as diffusers loads it
                                                     id2label.json             its classes' names

The loop stays ahead of the device: the numbers of an update are read when two more are under way.
Before a checkpoint all are read, so that every checkpoint is good.
"""

import signal
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import jax
import numpy as np
from tqdm.auto import tqdm

from ddpm_jax.training.data import Batches, make_batches
from ddpm_jax.training.data.workers import check_main_guard
from ddpm_jax.training.run.checkpoint import Checkpoints
from ddpm_jax.training.run.devices import Devices
from ddpm_jax.training.run.evaluate import HeldOutLoss
from ddpm_jax.training.run.export import export
from ddpm_jax.training.run.faults import told
from ddpm_jax.training.run.lock import locked
from ddpm_jax.training.run.logs import TENSORBOARD, Log, draw_curve
from ddpm_jax.training.run.plan import CHECKPOINTS, SETTINGS_NAME, Plan, check_folder
from ddpm_jax.training.run.samples import Sampler, save_picture
from ddpm_jax.training.run.signals import Stop, stop_on_signals
from ddpm_jax.training.run.trace import Trace
from ddpm_jax.training.run.watch import TrainingError, Watch
from ddpm_jax.training.step import make_train_step, make_train_steps, make_update

AHEAD = 2
"""Calls under way before the numbers of an earlier one are read."""


class Outcome(NamedTuple):
    """How a run ended.

    Attributes:
        step: updates in all.
        stopped: None, or the signal that ended it early.
        compilations: of the train step; one unless shapes differ.
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
            under way there; or more updates are done than are asked for.
        TrainingError: the loss is no number, or diverges.
        OSError: something cannot be written; what was complete before is kept.
        MemoryError: an update does not fit into memory.
    """
    check_main_guard()
    check_folder(plan.out, plan.settings, resume=resume)
    loop, settings = plan.settings.loop, plan.out / SETTINGS_NAME
    devices = Devices(loop)  # what does not divide leaves no folder behind
    with told(plan), ExitStack() as stack:
        plan.out.mkdir(parents=True, exist_ok=True)
        if jax.process_index() == 0:
            stack.enter_context(locked(plan.out))
            if not settings.exists():  # first of all: by it a folder is known as a run's
                plan.settings.save(settings)
        saved = stack.enter_context(
            Checkpoints(plan.out / CHECKPOINTS, keep_last=loop.keep_last, keep_best=loop.keep_best)
        )
        run = Run(plan, saved, devices, progress)
        stack.callback(run.batches.close)
        run.begin(resume)
        if run.log is not None:
            stack.enter_context(run.log)
            plan.settings.save(settings)  # of a resumed run, now that it does go on
        stop = stack.enter_context(stop_on_signals())
        stack.enter_context(run.bar)
        run.loop(stop)
        run.finish()
    return Outcome(run.step, stop.signal, run.compilations)


class Run:
    """The state of a run between two updates."""

    def __init__(self, plan: Plan, checkpoints: Checkpoints, devices: Devices, progress: bool):
        settings, loop = plan.settings, plan.settings.loop
        self.plan, self.checkpoints, self.devices = plan, checkpoints, devices
        self.schedule = settings.optimizer.schedule(loop.steps)
        self.optimizer = settings.optimizer.make(loop.steps)
        self.batches: Batches = make_batches(
            plan.source,
            settings.data,
            batch_size=loop.batch_size,
            seed=loop.seed,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        self.watch = Watch(loop.divergence)
        self.under_way: deque[Call] = deque()
        self.step = 0
        self.main = jax.process_index() == 0
        self.progress = progress and self.main
        self.held_out_loss: tuple[int, float] | None = None  # and the step that it is of

    # The beginning.

    def begin(self, resume: bool) -> None:
        """Fresh or restored; then everything that needs the state's shapes."""
        plan, loop = self.plan, self.plan.settings.loop
        key, of_params = jax.random.split(jax.random.key(loop.seed))

        params, news = plan.params(of_params)
        if self.main:
            for sentence in news:
                tqdm.write(sentence)
        self.state, self.shardings = self.devices.init(params, self.optimizer, key)
        if resume and self.checkpoints.latest() is not None:
            self._restore()
        self.log = None
        if self.main:
            self.log = Log(plan.out, self.step)
        loss = self.devices.spread(plan.loss, self.shardings)
        update = make_update(loss, self.optimizer, plan.settings.ema, accumulate=loop.accumulate)
        make = make_train_step if loop.steps_per_call == 1 else make_train_steps
        self.train_step = make(update, shardings=self.shardings)
        self.sampler = self._sampler() if loop.sample_every else None
        self.held_out = HeldOutLoss.of(plan, self.devices, self.batches.corrupt)
        self.bar = tqdm(
            total=loop.steps, initial=self.step, disable=not self.progress, unit="update"
        )
        self.bar.set_description("compiling")
        self.interval = Interval(time.perf_counter())

    def _restore(self) -> None:
        found = self.checkpoints.restore(self.state)
        self.state, self.step = found.state, int(found.state.step)
        steps = self.plan.settings.loop.steps
        if self.step > steps:
            raise ValueError(f"{self.step} updates are done already, and loop.steps is {steps}")
        self.batches.restore(found.extra["input"])
        self.watch.restore(found.extra["watch"])

    def _sampler(self) -> Sampler:
        loop = self.plan.settings.loop
        return Sampler(
            self.plan.model,
            self.plan.scheduler,
            num=loop.sample_num,
            steps=loop.sample_steps,
            seed=loop.seed,
            shape=self.plan.source.shape,
            place=self.devices.replicate,
        )

    # The loop.

    def loop(self, stop: Stop) -> None:
        """Updates until the last, or until a signal; then a checkpoint."""
        loop = self.plan.settings.loop
        saved = self.step
        trace = Trace(self.plan.out / TENSORBOARD, self.step, loop.profile)
        while self.step < loop.steps and not self.devices.agree(self.step, stop.asked):
            trace.at(self.step)
            self._update()
            if self.step % loop.log_every == 0:
                self._write_log()
            if loop.sample_every and self.step % loop.sample_every == 0:
                self._sample()
            if self.held_out is not None and self.step % loop.eval_every == 0:
                self._evaluate()
            if self.step % loop.save_every == 0:
                self._save()
                saved = self.step
        trace.end()
        self._settle(0)
        if self.interval.updates:
            self._write_log()
        if saved != self.step:
            self._save()

    def _update(self) -> None:
        loop = self.plan.settings.loop
        began = time.perf_counter()
        batches = [next(self.batches) for _ in range(loop.steps_per_call)]
        self.interval.waited += time.perf_counter() - began
        indices = np.stack([batch.pop("index") for batch in batches])
        several = loop.steps_per_call > 1
        batch = jax.tree.map(lambda *x: np.stack(x), *batches) if several else batches[0]
        placed = self.devices.place_batch(batch, stacked=several)
        self.state, metrics = self.train_step(self.state, placed)
        if self.bar.desc:
            self.bar.set_description()  # it is compiled
        self.step += loop.steps_per_call
        self.under_way.append(Call(self.step, metrics, indices))
        self._settle(AHEAD)
        self.bar.update(loop.steps_per_call)

    def _settle(self, left: int) -> None:
        """Reads numbers until so many calls are left unread."""
        while len(self.under_way) > left:
            call = self.under_way.popleft()
            host = {name: np.atleast_1d(np.asarray(v)) for name, v in call.metrics.items()}
            first = call.step - len(call.indices) + 1
            for i, indices in enumerate(call.indices):
                numbers = {name: float(values[i]) for name, values in host.items()}
                try:
                    self.watch.see(first + i, numbers, indices.tolist())
                except TrainingError as error:
                    raise TrainingError(f"{error}; {self._last_good()}") from None
                self.interval.updates += 1
                self.interval.loss += numbers["loss"]
                self.interval.grad_norm += numbers["grad_norm"]

    def _last_good(self) -> str:
        step, folder = self.checkpoints.latest(), self.checkpoints.folder
        return (
            "there is no checkpoint"
            if step is None
            else f"the last good checkpoint is {folder / str(step)}"
        )

    # What is written at intervals.

    def _write_log(self) -> None:
        self._settle(0)
        past, now = self.interval, time.perf_counter()
        seconds = now - past.began
        numbers = {
            "loss": past.loss / past.updates,
            "grad_norm": past.grad_norm / past.updates,
            "learning_rate": float(self.schedule(self.step - 1)),
            "images_per_second": past.updates * self.plan.settings.loop.batch_size / seconds,
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
    def _beside(self, what: str) -> Iterator[None]:
        """The interval's clock stands still, and the bar says why it does too."""
        self._settle(0)
        began = time.perf_counter()
        self.bar.set_description(what)
        yield
        self.bar.set_description()
        self.interval.began += time.perf_counter() - began

    def _sample(self) -> None:
        assert self.sampler is not None
        with self._beside("samples"):
            grid = self.sampler.grid(self.state.ema)
            if self.log is not None:
                save_picture(grid, self.plan.out / "samples" / f"{self.step:06d}.png")
                self.log.picture(self.step, "samples", grid)

    def _evaluate(self) -> None:
        assert self.held_out is not None
        with self._beside("held-out loss"):
            loss = self.held_out.loss(self.state.ema)
            self.held_out_loss = self.step, loss
            if self.log is not None:
                self.log.write(self.step, {"held_out_loss": loss})

    def _save(self) -> None:
        with self._beside("checkpoint"):
            extra = {"input": self.batches.state(), "watch": self.watch.state()}
            step, loss = self.held_out_loss or (None, None)
            self.checkpoints.save(self.state, extra, held_out=loss if step == self.step else None)

    # The end.

    def finish(self) -> None:
        """Writes the result and the curve."""
        ema, params = self.devices.fetch((self.state.ema, self.state.params))
        if self.main:
            plan = self.plan
            export(plan.out, plan.model, plan.scheduler, ema, params, plan.classes)
            draw_curve(self.plan.out)

    @property
    def compilations(self) -> int:
        """Of the train step."""
        return self.train_step._cache_size()  # pyright: ignore[reportFunctionMemberAccess]
