"""`ddpm-jax learn`: a table of few evaluations for a model."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ddpm_jax.cli import cache
from ddpm_jax.cli.common import (
    Assignments,
    Labels,
    OptionalGrid,
    OptionalName,
    OptionalNumber,
    OptionError,
    Prompts,
    counted,
    option_errors,
    too_small,
)
from ddpm_jax.cli.schedule import Schedule
from ddpm_jax.schedulers import BY_NAME, SchedulerName
from ddpm_jax.tables.grids import GridName

if TYPE_CHECKING:
    from jaxtyping import Array, Key

    from ddpm_jax.learning.subjects import Subject
    from ddpm_jax.tables.table import Table


@dataclass(frozen=True, kw_only=True)
class Learn:
    """Learn a table of few evaluations, whose images are close to those of a longer run."""

    EXAMPLES: ClassVar[str] = """\
  ddpm-jax learn --model digits --evaluations 8 --out digits-8.json
  ddpm-jax learn --model ./my-model --evaluations 5 --updates 2000 --images 4096 --out five.json
  ddpm-jax learn --model avatars --prompts-from people.txt --guidance 2 --evaluations 8"""

    model: str = "digits"
    """A hub id, a local folder, or the bundled "digits" or "avatars"."""

    evaluations: int = 8
    """Evaluations of the network in a run of the table: its rows."""

    out: str = "learned.json"
    """The table's file. The run is kept beside it, in a file ending in .state.npz, until it is
    done: an interrupted run continues when the command is repeated."""

    start: SchedulerName = "uni-pc-multistep"
    """The scheduler whose table it starts from, with one row a step."""

    grid: OptionalGrid = "dmn"
    """The noise levels that it starts from, by name. None: the last timestep and even steps down
    from it."""

    teacher: SchedulerName = "dpm-solver-multistep"
    """The scheduler of the longer run."""

    teacher_steps: int = 50
    """Inference steps of the longer run."""

    images: int = 1024
    """Number of the longer run's images to learn from. One in eight is held out."""

    updates: int = 600
    """Updates of the table's numbers, each on a batch."""

    batch_size: int = 32
    """Images in an update."""

    learning_rate: float = 0.02
    """Of Adam, with a cosine decay to 0."""

    seed: int = 0
    """Of the images to learn from, from 0."""

    labels: Labels = ()
    """For models with classes: the images' classes by number or name, repeated cyclically. By
    default all classes."""

    prompt: Prompts = ()
    """For models of text to image: what the images show, repeated cyclically."""

    prompts_from: OptionalName = None
    """A text file with a prompt on each line."""

    negative: OptionalName = None
    """What guidance moves away from; by default the empty text."""

    guidance: OptionalNumber = None
    """The scale of classifier-free guidance with prompts, by default 7.5. A table is learned for
    one scale."""

    overrides: Assignments = ()
    """Change fields of both schedulers' configs. By default only timestep_spacing=trailing where
    they have it, so that both begin at the last timestep."""

    scheduler_config: OptionalName = None
    """As of sample."""

    revision: OptionalName = None
    """Branch, tag or commit of a model on the hub."""

    variant: OptionalName = None
    """Which of a model's weight files, such as fp16."""

    no_cache: bool = False
    """Do not store compiled programs in the user's cache folder."""

    def run(self) -> None:
        """Learn the table, write it, and print where it is."""
        self._check()
        from ddpm_jax.cli.loading import scheduler_config
        from ddpm_jax.cli.output import check_writable
        from ddpm_jax.cli.prompted import prompts_of

        prompts = prompts_of(self.prompt, self.prompts_from)
        make = self._prompted(prompts) if prompts else self._labelled()
        config = scheduler_config(self.model, self.revision, self.scheduler_config)
        start = self._table(config, self.start, self.evaluations, self.grid)
        teacher = self._table(config, self.teacher, self.teacher_steps)
        with option_errors():
            from ddpm_jax.learning.space import space_of

            space_of(start, teacher)
        check_writable(Path(self.out).parent)
        if not self.no_cache:
            cache.use(cache.folder())
        self._learn(start, teacher, make)

    def _labelled(self) -> "Callable[[Key[Array, 'n']], Subject]":
        """Reads the configs of a model without prompts; the result reads its weights."""
        from ddpm_jax.cli.loading import classes_of, read_network
        from ddpm_jax.learning.subjects import unconditional

        given = {"--guidance": self.guidance, "--negative": self.negative}
        if needs := [name for name, value in given.items() if value is not None]:
            raise OptionError(f"{', '.join(needs)}: only with --prompt or --prompts-from")
        network = read_network(self.model, self.revision, BY_NAME[self.start])
        labels = classes_of(network, self.labels)

        def make(keys: "Key[Array, 'n']") -> "Subject":
            from ddpm_jax.models import UNet2DModel
            from ddpm_jax.schedulers import DDPMScheduler

            unet, params = UNet2DModel.from_pretrained(
                self.model, revision=self.revision, variant=self.variant
            )
            pipe = network.pipeline(unet=unet, params=params, scheduler=DDPMScheduler())
            return unconditional(pipe, keys, labels)

        return make

    def _prompted(self, prompts: list[str]) -> "Callable[[Key[Array, 'n']], Subject]":
        """Reads the index of a model with prompts; the result reads its weights."""
        from ddpm_jax.cli.loading import located
        from ddpm_jax.learning.subjects import prompted
        from ddpm_jax.pipelines.base import supported_class
        from ddpm_jax.pipelines.stable_diffusion import GUIDANCE_SCALE
        from ddpm_jax.pipelines.text_to_image import StableDiffusionPipeline

        if self.labels:
            raise OptionError("--labels are of models without prompts: leave them out")
        _, index = located(self.model, self.revision)
        if index is None or not issubclass(supported_class(index), StableDiffusionPipeline):
            raise OptionError(f"{self.model} is no model of text to image: leave out --prompt")

        def make(keys: "Key[Array, 'n']") -> "Subject":
            pipe: Any = StableDiffusionPipeline.from_pretrained(
                self.model, revision=self.revision, variant=self.variant
            )
            scale = GUIDANCE_SCALE if self.guidance is None else self.guidance
            return prompted(
                pipe, keys, prompts, guidance_scale=scale, negative_prompt=self.negative
            )

        return make

    def _learn(
        self, start: "Table", teacher: "Table", make: "Callable[[Key[Array, 'n']], Subject]"
    ) -> None:
        import jax

        from ddpm_jax.learning import learn_table
        from ddpm_jax.sampling.keys import sample_keys
        from ddpm_jax.tables.files import save_table

        keys = sample_keys(jax.random.key(self.seed), self.images)
        subject = make(keys)
        out = Path(self.out)
        state = out.with_name(f"{out.stem}.state.npz")
        try:
            table = learn_table(
                subject.denoise,
                subject.params,
                start,
                teacher,
                keys,
                subject.shape,
                self.updates,
                conditions=subject.conditions,
                batch_size=self.batch_size,
                learning_rate=self.learning_rate,
                state=state,
            )
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"interrupted; {state} keeps the run: repeat the command to go on"
            ) from None
        save_table(
            out, table, description=self._description(), guidance_scale=subject.guidance_scale
        )
        state.unlink(missing_ok=True)
        print(f"{counted(len(table), 'evaluation')}: ddpm-jax sample --table {out}")

    def _table(
        self, config: Any, name: SchedulerName, steps: int, grid: GridName | None = None
    ) -> "Table":
        schedule = Schedule(scheduler=name, steps=steps, grid=grid, overrides=self.overrides)
        given = bool(self.overrides)
        scheduler = schedule.make(config) if given else BY_NAME[name].trailing(config)
        try:
            return schedule.table(scheduler, self.model)
        except OptionError as error:
            if grid is None:
                raise
            raise OptionError(f"{error}. Without a grid: --grid None") from error

    def _description(self) -> str:
        start = self.start if self.grid is None else f"{self.start} on {self.grid}"
        guided = f", guidance {self.guidance}" if self.guidance is not None else ""
        return (
            f"{self.evaluations} evaluations of {self.model}{guided}: {start}, learned towards "
            f"{self.teacher_steps} steps of {self.teacher} by {self.updates} updates of "
            f"{self.batch_size} of {self.images} images, learning rate {self.learning_rate:g}, "
            f"seed {self.seed}"
        )

    def _check(self) -> None:
        counts = dict.fromkeys(("evaluations", "teacher_steps", "batch_size"), 1)
        faults = too_small(self, counts | {"images": 2, "updates": 0, "seed": 0})
        if not self.learning_rate > 0:
            faults.append(f"--learning-rate must be above 0, got {self.learning_rate}")
        if Path(self.out).suffix != ".json":
            faults.append(f"--out must end in .json, got {self.out}")
        if faults:
            raise OptionError("; ".join(faults))
