"""Our side of training: the loop of `ddpm-jax train`, fed from memory or from the pictures."""

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from benchmarks.jax_runner import JaxUNet
from ddpm_jax.training.run.checkpoint import Checkpoints
from ddpm_jax.training.run.finetune import load_base
from ddpm_jax.training.run.plan import CHECKPOINTS, Plan, make_plan
from ddpm_jax.training.run.ready import input_batches, prepare
from ddpm_jax.training.run.run import Run
from ddpm_jax.training.run.settings import Settings


@dataclass(frozen=True, eq=False)
class Loaded(Plan):
    """A plan whose first params are the base's, which has the same network."""

    def params(self, key: jax.Array) -> tuple[dict[str, Any], list[str]]:
        """As they are; `adapt` would compile for a while."""
        assert self.base is not None
        return self.base.params, []


class JaxTraining(JaxUNet):
    """See `benchmarks.worker.Runner`. Its loops are a run's own, `Run`, from two inputs."""

    def load(self) -> dict[str, Any]:
        if jax.device_count() > 1:
            raise ValueError(
                f"jax sees {jax.device_count()} devices and torch trains on one: "
                "set CUDA_VISIBLE_DEVICES to one"
            )
        settings = Settings.load(self.folder / "settings.json")
        out = Path(tempfile.mkdtemp(dir=self.folder))
        plan = make_plan(settings, out, load_base(str(self.folder / "unet")))
        batches = input_batches(plan)
        ready = prepare(Loaded(**vars(plan)), Checkpoints(out / CHECKPOINTS), batches)
        self.training = Run(ready, None, progress=False)
        self.image = np.load(self.folder / "x_T.npy")
        self.inputs = {"fed": batches, "loop": self._in_memory()}
        self.waiting: list[float] = []
        self._save_draws()
        return self.versions() | {"optax": optax.__version__}

    def outputs(self, _evaluations: int, path: str) -> None:
        np.savez(path, **self.began)

    def first(self) -> float:
        seconds = self.run("loop", 1)
        sums = self.training.interval
        self.began = {"loss": sums.loss, "grad_norm": sums.grad_norm}  # of this one update
        return seconds - self.run("loop", 1)

    def run(self, loop: str, updates: int) -> float:
        training = self.training
        training.ready = replace(training.ready, batches=self.inputs[loop])
        waited = training.interval.waited
        began = time.perf_counter()
        for _ in range(updates):
            training.update()
        training.settle()
        jax.block_until_ready(training.state)
        seconds = time.perf_counter() - began
        if loop == "fed":
            self.waiting.append((training.interval.waited - waited) / seconds)
        return seconds

    def input(self, rounds: int, seconds: float) -> dict[str, Any]:
        """Of the last rounds' windows, the share that the loop waited for its input; and how many
        batches a second the input gives where nothing trains beside it.
        """
        began, drawn = time.perf_counter(), 0
        while (took := time.perf_counter() - began) < seconds or not drawn:
            next(self.inputs["fed"])
            drawn += 1
        return {"waiting": self.waiting[-rounds:], "alone": drawn / took}

    def _in_memory(self) -> Iterator[dict[str, np.ndarray[Any, Any]]]:
        index = np.zeros(self.batch, np.int64)
        while True:
            yield {"image": self.image, "index": index}

    def _save_draws(self) -> None:
        """What the first update draws, for the others to begin with the same."""
        state = self.training.state
        drawn = self.training.ready.plan.loss.draw(
            {"image": self.image}, jax.random.fold_in(state.key, state.step)
        )
        np.savez(self.folder / "draws.npz", noise=drawn.noise, timestep=drawn.timestep)
