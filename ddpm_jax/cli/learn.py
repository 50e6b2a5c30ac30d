"""`ddpm-jax learn`: a table of few evaluations for a model."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import tyro

from ddpm_jax.cli.common import (
    Assignments,
    Labels,
    OptionalName,
    OptionError,
    counted,
    option_errors,
)
from ddpm_jax.cli.schedule import Schedule
from ddpm_jax.schedulers import SchedulerName

if TYPE_CHECKING:
    from ddpm_jax.pipelines.inputs import Inputs
    from ddpm_jax.tables.table import Table

BY_TYPE = Annotated[str, tyro.conf.arg(metavar="NAME")]


@dataclass(frozen=True, kw_only=True)
class Learn:
    """Fit a table of few evaluations to the images of a longer run of a model."""

    EXAMPLES: ClassVar[str] = """\
  ddpm-jax learn --model digits --evaluations 8 --out digits-8.json
  ddpm-jax sample --table digits-8.json
  ddpm-jax learn --model ./my-model --evaluations 5 --updates 4000 --images 4096"""

    model: str = "digits"
    """A hub id, a local folder or a bundled name, of a model without prompts."""

    evaluations: int = 8
    """Evaluations of the network in a run of the table: its rows."""

    out: str = "learned.json"
    """The table's file. The run is kept beside it, in a file ending in .state.npz, until it is
    done: an interrupted run continues when the command is repeated."""

    start: SchedulerName = "ddim"
    """The scheduler to start from. Its table must have one row a step."""

    teacher: SchedulerName = "ddim"
    """The scheduler of the longer run."""

    teacher_steps: int = 100
    """Inference steps of the longer run."""

    images: int = 1024
    """Number of the teacher's images to learn from. One in eight is held out."""

    updates: int = 1000
    """Updates of the table's numbers, each on a batch."""

    batch_size: int = 64
    """Images in an update."""

    learning_rate: float = 0.01
    """Of Adam, with a cosine decay to 0."""

    seed: int = 0
    """Of the images to learn from."""

    labels: Labels = ()
    """For models with classes: the images' classes by number or name, repeated cyclically. By
    default all classes."""

    overrides: Assignments = ("timestep_spacing=trailing",)
    """Change fields of both schedulers' configs. By default timestep_spacing=trailing, so that both
    begin at the last timestep."""

    scheduler_config: OptionalName = None
    """As of sample."""

    revision: OptionalName = None
    """Branch, tag or commit of a model on the hub."""

    variant: OptionalName = None
    """Which of a model's weight files, such as fp16."""

    no_cache: bool = False
    """Do not store compiled programs in the user's cache folder."""

    def run(self) -> None:
        """Learn the table, write it, and print how close it came."""
        self._check()
        from ddpm_jax.cli.loading import classes_of, read_network, scheduler_config

        network = read_network(self.model, self.revision)
        labels = classes_of(network, self.labels)
        config = scheduler_config(self.model, self.revision, self.scheduler_config)
        start, teacher = (
            self._table(config, name, steps)
            for name, steps in (
                (self.start, self.evaluations),
                (self.teacher, self.teacher_steps),
            )
        )
        if len(start) != self.evaluations:
            raise OptionError(
                f"--start {self.start} takes {len(start)} evaluations for {self.evaluations} "
                "steps: choose a scheduler with one row a step, such as ddim"
            )
        if not self.no_cache:
            from ddpm_jax.cli import cache

            cache.use(cache.folder())
        self._learn(start, teacher, labels)

    def _learn(self, start: "Table", teacher: "Table", labels: tuple[int, ...]) -> None:
        import jax
        import numpy as np

        from ddpm_jax.learning import learn_table
        from ddpm_jax.models import UNet2DModel
        from ddpm_jax.pipelines.generate import with_inputs
        from ddpm_jax.pipelines.inputs import image_shape, make_inputs
        from ddpm_jax.tables.files import save_table

        model, params = UNet2DModel.from_pretrained(
            self.model, revision=self.revision, variant=self.variant
        )
        indices = np.arange(self.images)
        inputs: Inputs = make_inputs(
            model,
            teacher,
            jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(self.seed), indices),
            class_labels=np.asarray(labels)[indices % len(labels)] if labels else None,
        )
        denoise, given = with_inputs(model, params, inputs)
        out = Path(self.out)
        state = out.with_name(f"{out.stem}.state.npz")
        conditions: dict[str, Any] = {k: given[k] for k in ("context",) if k in given}
        with option_errors():
            table = learn_table(
                denoise,
                given,
                start,
                teacher,
                inputs.keys,
                image_shape(model),
                self.updates,
                conditions=conditions,
                batch_size=self.batch_size,
                learning_rate=self.learning_rate,
                state=state,
            )
        save_table(out, table, description=self._description())
        state.unlink(missing_ok=True)
        print(f"saved {counted(len(table), 'evaluation')} to {out}: ddpm-jax sample --table {out}")

    def _table(self, config: Any, name: str, steps: int) -> "Table":
        schedule = Schedule(scheduler=name, steps=steps, overrides=self.overrides)
        return schedule.table(schedule.make(config))

    def _description(self) -> str:
        return (
            f"{self.evaluations} evaluations of {self.model}, learned from {self.teacher} with "
            f"{self.teacher_steps} steps in {self.updates} updates of {self.batch_size} images"
        )

    def _check(self) -> None:
        least = {
            "evaluations": 1,
            "teacher_steps": 1,
            "images": 2,
            "updates": 0,
            "batch_size": 1,
            "seed": 0,
        }
        faults = [
            f"--{name.replace('_', '-')} must be at least {low}, got {getattr(self, name)}"
            for name, low in least.items()
            if getattr(self, name) < low
        ]
        if not self.learning_rate > 0:
            faults.append(f"--learning-rate must be above 0, got {self.learning_rate}")
        if Path(self.out).suffix != ".json":
            faults.append(f"--out must end in .json, got {self.out}")
        if faults:
            raise OptionError("; ".join(faults))
