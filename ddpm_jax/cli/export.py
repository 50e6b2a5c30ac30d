"""`ddpm-jax export`: a whole sampling run as one file, which runs without this library."""

import dataclasses
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import tyro

from ddpm_jax.cli.common import (
    OptionalCount,
    OptionalName,
    OptionalRange,
    OptionError,
    counted,
    flag,
    option_errors,
    too_small,
)
from ddpm_jax.cli.schedule import Schedule

if TYPE_CHECKING:
    from ddpm_jax.schedulers import Scheduler

Platforms = Annotated[
    tuple[Literal["cpu", "cuda", "rocm", "tpu"], ...],
    tyro.conf.arg(metavar="NAME ...", help_behavior_hint=""),
]


@dataclass(frozen=True, kw_only=True)
class Export(Schedule):
    """Export a whole sampling run as one file. jax and NumPy run it, without this library."""

    EXAMPLES: ClassVar[str] = """\
  ddpm-jax export digits --steps 50 --out digits.npz
  ddpm-jax export digits --scheduler learned --steps 8 --platforms cpu cuda tpu
  ddpm-jax export google/ddpm-cifar10-32 --scheduler dpm-solver-multistep --steps 20 --batch 16
  ddpm-jax export runs/classes/final --guided --out classes.npz"""

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """A hub id, a local folder, or the bundled "digits"."""

    out: str = "sampler.npz"
    """The file, overwritten if it exists."""

    batch: OptionalCount = None
    """Images of a call. By default any number; each compiles once."""

    platforms: Platforms = ()
    """What the file is for: one or more of cpu, cuda, rocm, tpu. By default this machine's."""

    guided: bool = False
    """For models with classes that were trained with dropped labels: calls take the scale of
    classifier-free guidance. Each evaluation then takes a batch of twice the size."""

    guidance_interval: OptionalRange = None
    """With --guided: guidance only between these two noise levels sigma / alpha."""

    from_noise: bool = False
    """Calls take the starting points x_T, instead of drawing them from the seed."""

    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Dtype of the network's computation."""

    revision: OptionalName = None
    """Branch, tag or commit of a model on the hub."""

    variant: OptionalName = None
    """Which of a model's weight files, such as fp16."""

    def run(self) -> None:
        """Write the file, and print its path."""
        self._check()
        from ddpm_jax.cli.loading import no_class_of, read_network, scheduler_config
        from ddpm_jax.cli.output import check_writable
        from ddpm_jax.export.write import check_run, checked_platforms, export_sampler
        from ddpm_jax.pipelines.call import checked_interval

        platforms = checked_platforms(self.platforms)
        config = scheduler_config(self.model, self.revision, self.scheduler_config)
        hint = "export is for models without"  # a run with them has three networks, and a tokenizer
        network = read_network(self.model, self.revision, self.kind(config), hint)
        scheduler = self.make(config)
        table = self.table(scheduler, self.model)
        with option_errors():
            check_run(table)
            checked_interval(self.guidance_interval, table, 2.0)
        if self.guided:
            no_class_of(network)
        check_writable(Path(self.out).parent)

        import jax.numpy as jnp

        from ddpm_jax.models import UNet2DModel

        unet, params = UNet2DModel.from_pretrained(
            self.model,
            revision=self.revision,
            variant=self.variant,
            dtype=jnp.dtype(self.dtype),
        )
        pipe = network.pipeline(unet=unet, params=params, scheduler=scheduler)
        pipe.class_names = network.names
        export_sampler(
            self.out,
            pipe,
            table,
            batch_size=self.batch,
            platforms=platforms,
            guided=self.guided,
            guidance_interval=self.guidance_interval,
            x_T=self.from_noise,
            made_by=self.command(),
            settings=self._settings(scheduler),
        )
        size = Path(self.out).stat().st_size / 1e6
        print(
            f"{counted(len(table), 'evaluation')} for {', '.join(platforms)}, {size:.1f} MB: "
            f"{Path(self.out).resolve()}"
        )

    def command(self) -> str:
        """The command line of these options."""
        words = ["ddpm-jax", "export", self.model]
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name == "model" or value == field.default:
                continue
            words.append(flag(field.name))
            if value is not True:
                words += map(str, value if isinstance(value, tuple) else [value])
        return shlex.join(words)

    def _settings(self, scheduler: "Scheduler") -> dict[str, str]:
        """What determines the images, beside the seed, as text by name."""
        from ddpm_jax.cli.fingerprint import fingerprint
        from ddpm_jax.cli.provenance import chosen

        return chosen(
            self,
            ("model", "revision", "variant", "guidance_interval", "dtype"),
            **fingerprint(self.model, self.revision, self.variant),
            **self.settings(scheduler, self.model),
        )

    def _check(self) -> None:
        faults = too_small(self, {"steps": 1, "batch": 1})
        if Path(self.out).suffix != ".npz":
            faults.append(f"--out must end in .npz, got {self.out}")
        if self.guidance_interval is not None and not self.guided:
            faults.append("--guidance-interval needs --guided")
        if faults:
            raise OptionError("; ".join(faults))
