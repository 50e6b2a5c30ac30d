"""`ddpm-jax sample`: generate images from a model."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from ddpm_jax.cli import cache
from ddpm_jax.cli.common import Labels, OptionalCount, OptionalName, OptionalNumber, OptionError
from ddpm_jax.cli.output import Folder, Grid
from ddpm_jax.cli.schedule import Schedule, scheduler_json

if TYPE_CHECKING:
    from ddpm_jax.schedulers import Scheduler
    from ddpm_jax.tables.table import Table

LARGEST_SEED = 2**32 - 1
"""Without jax's x64 mode a key has 32 bits of seed: a larger seed would repeat a smaller one."""


@dataclass(frozen=True, kw_only=True)
class Sample(Schedule):
    """Generate images from a model, as one grid or as a folder of files."""

    EXAMPLES: ClassVar[str] = """\
  ddpm-jax sample
  ddpm-jax sample --model google/ddpm-cifar10-32 --scheduler euler --steps 30 --out cifar.png
  ddpm-jax sample --num 1000 --batch-size 100 --seed 1 --out digits/
  ddpm-jax sample --num 4 --save-every 5 --out digits.png"""

    model: str = "digits"
    """A hub id, a local folder, or the bundled "digits" or "emoji"."""

    num: int = 16
    """Number of images."""

    batch_size: OptionalCount = None
    """Images computed together. The default depends on the image size and is at most 64."""

    seed: int = 0
    """From 0 to 4294967295. Image i of a seed does not depend on --num and --batch-size."""

    labels: Labels = ()
    """For models with classes: the images' classes by number or name, repeated cyclically. By
    default all classes."""

    guidance: OptionalNumber = None
    """For models that were trained with dropped labels: the scale of classifier-free guidance. Up
    to 1, the default, there is none."""

    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Dtype of the network's computation."""

    out: str = "samples.png"
    """A name ending in .png is one file with a grid. Any other name is a folder with one file for
    each image. Only missing files are made, so an interrupted run continues when the command is
    repeated."""

    columns: OptionalCount = None
    """Images in a row of the grid. By default the grid is nearly square."""

    save_every: OptionalCount = None
    """Also save the predicted images after every N network evaluations, as NAME-steps.png."""

    revision: OptionalName = None
    """Branch, tag or commit of a model on the hub."""

    variant: OptionalName = None
    """Which of a model's weight files, such as fp16."""

    no_cache: bool = False
    """Do not store compiled programs in the user's cache folder."""

    def run(self) -> None:
        """Generate the missing images, and print their path."""
        self._check()
        began = time.perf_counter()
        from ddpm_jax.cli.loading import classes_of, no_class_of, read_network, scheduler_config

        network = read_network(self.model, self.revision)
        scheduler = self.make(scheduler_config(self.model, self.revision, self.scheduler_config))
        table = self.table(scheduler)
        labels = classes_of(network, self.labels)
        negative = no_class_of(network) if (self.guidance or 1) > 1 else None
        target = self._target(self._settings(scheduler, labels))
        wanted = target.missing(self.num)
        if wanted:
            if not self.no_cache:
                cache.use(cache.folder())
            self._draw(table, wanted, target, labels, negative)
        print(target.report(self.num, len(wanted), time.perf_counter() - began))

    def _draw(
        self,
        table: "Table",
        wanted: list[int],
        target: Grid | Folder,
        labels: tuple[int, ...],
        negative: int | None,
    ) -> None:
        import jax.numpy as jnp

        from ddpm_jax.cli.drawing import Drawing, default_batch_size
        from ddpm_jax.models import UNet2DModel

        model, params = UNet2DModel.from_pretrained(
            self.model, revision=self.revision, variant=self.variant, dtype=jnp.dtype(self.dtype)
        )
        drawing = Drawing(
            model=model,
            params=params,
            table=table,
            seed=self.seed,
            labels=labels,
            negative=negative,
            guidance=self.guidance or 1.0,
            batch_size=min(self.num, self.batch_size or default_batch_size(model, self.num)),
            every=self.save_every,
        )
        try:
            for sampled in drawing.draw(wanted):
                target.save(sampled)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"interrupted; {target.if_interrupted}") from None

    def _settings(self, scheduler: "Scheduler", labels: tuple[int, ...]) -> dict[str, str]:
        """All settings that determine an image's pixels, except its index, as text by name."""
        from ddpm_jax.cli.fingerprint import fingerprint

        given = {
            "model": self.model,
            "revision": self.revision,
            "variant": self.variant,
            **fingerprint(self.model, self.revision, self.variant),
            "scheduler": scheduler_json(scheduler),
            "steps": self.steps,
            **self.options(),
            "seed": self.seed,
            "labels": " ".join(map(str, labels)) or None,
            "guidance": self.guidance,
            "dtype": self.dtype,
        }
        return {name: str(value) for name, value in given.items() if value is not None}

    def _target(self, settings: Mapping[str, str]) -> Grid | Folder:
        out, every = Path(self.out), self.save_every
        if out.suffix.lower() == ".png":
            return Grid(out, settings, columns=self.columns, strips=every is not None)
        return Folder(out, settings, strips=every is not None)

    def _check(self) -> None:
        least = {"num": 1, "batch_size": 1, "columns": 1, "save_every": 1, "steps": 1, "seed": 0}
        faults = [
            f"--{name.replace('_', '-')} must be at least {low}, got {getattr(self, name)}"
            for name, low in least.items()
            if getattr(self, name) is not None and getattr(self, name) < low
        ]
        if self.seed > LARGEST_SEED:
            faults.append(f"--seed must be at most {LARGEST_SEED}, got {self.seed}")
        if not self.out:
            faults.append("--out must not be empty: pass a name ending in .png, or a folder")
        ending = Path(self.out).suffix.lower()
        if ending != ".png":
            if ending in (".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".tif", ".tiff"):
                faults.append(f"--out must end in .png or be a folder, got {self.out}")
            if self.columns is not None:
                faults.append("--columns needs a grid: --out must end in .png")
        if faults:
            raise OptionError("; ".join(faults))
