"""`ddpm-jax sample`: generate images from a model."""

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from ddpm_jax.cli import cache
from ddpm_jax.cli.common import (
    Labels,
    OptionalCount,
    OptionalName,
    OptionalNumber,
    OptionalRange,
    OptionError,
    Prompts,
    too_small,
)
from ddpm_jax.cli.output import Folder, Grid
from ddpm_jax.cli.schedule import Schedule

if TYPE_CHECKING:
    from ddpm_jax.cli.drawing import Drawing
    from ddpm_jax.cli.prompted import Job
    from ddpm_jax.schedulers import Scheduler

LARGEST_SEED = 2**32 - 1
"""Without jax's x64 mode a key has 32 bits of seed: a larger seed would repeat a smaller one."""


@dataclass(frozen=True, kw_only=True)
class Sample(Schedule):
    """Generate images from a model, as one grid or as a folder of files."""

    EXAMPLES: ClassVar[str] = """\
  ddpm-jax sample --prompt "a person with green hair and glasses"
  ddpm-jax sample --model sd --prompts-from cats.txt --num 4 --out cats/
  ddpm-jax sample --model sd --prompt "a winter night" --image day.png --strength 0.6
  ddpm-jax sample
  ddpm-jax sample --scheduler learned --steps 8
  ddpm-jax sample --table digits-8.json
  ddpm-jax sample --model google/ddpm-cifar10-32 --scheduler euler --steps 30 --out cifar.png
  ddpm-jax sample --num 1000 --batch-size 100 --seed 1 --out digits/
  ddpm-jax sample --model google/ddpm-celebahq-256 --image face.png --mask hole.png --num 4
  ddpm-jax sample --upscale small.png --num 4 --scheduler dpm-solver-multistep
  ddpm-jax sample --num 4 --save-every 5 --gif --out digits.png"""

    model: OptionalName = None
    """A hub id, a local folder, or the bundled "digits" or "avatars". By default "digits", and
    "avatars" with a prompt."""

    prompt: Prompts = ()
    """What the images show: one text or several, for models of text to image."""

    prompts_from: OptionalName = None
    """A text file with a prompt on each line."""

    negative: OptionalName = None
    """What guidance moves away from; by default the empty text."""

    image: OptionalName = None
    """An image to begin with: image to image, or with --mask inpainting. Without a prompt it is
    scaled to the model's size."""

    mask: OptionalName = None
    """An image of the size of --image: the white part is made anew."""

    upscale: OptionalName = None
    """An image that is smaller than the model's by a whole factor, for models without prompts:
    images are drawn that look like it when they are scaled down."""

    strength: OptionalNumber = None
    """With --image: the part of the steps that is run, above 0 and at most 1. By default 0.8, and 1
    with --mask."""

    height: OptionalCount = None
    """Of images from prompts, in pixels; by default the model's own."""

    width: OptionalCount = None
    """As --height."""

    num: OptionalCount = None
    """Number of images, by default 16; with prompts of each prompt, by default 1."""

    batch_size: OptionalCount = None
    """Images computed together. The default depends on the image size and is at most 64."""

    seed: int = 0
    """From 0 to 4294967295. Image i of a seed does not depend on --batch-size, nor, with at most
    one prompt, on --num."""

    labels: Labels = ()
    """For models with classes: the images' classes by number or name, repeated cyclically. By
    default all classes."""

    guidance: OptionalNumber = None
    """The scale of classifier-free guidance. Up to 1 there is none. By default 7.5 with prompts, or
    that of a learned table; and 1 for models with classes, which must have been trained with
    dropped labels."""

    guidance_interval: OptionalRange = None
    """Guidance only between these two noise levels sigma / alpha."""

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

    gif: bool = False
    """With --save-every and a grid: also an animation of the whole grid, NAME-steps.gif."""

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
        from ddpm_jax.cli.prompted import job, prompts_of

        prompts = prompts_of(self.prompt, self.prompts_from)
        found = job(self, self.model or "avatars", prompts) if prompts else self._labelled()
        target = self._target(found)
        wanted = target.missing(found.total)
        if wanted:
            if not self.no_cache:
                cache.use(cache.folder())
            try:
                for sampled in found.drawing().draw(wanted):
                    target.save(sampled)
            except KeyboardInterrupt:
                raise KeyboardInterrupt(f"interrupted; {target.if_interrupted}") from None
        print(target.report(found.total, len(wanted), time.perf_counter() - began))

    def _labelled(self) -> "Job":
        """The run of a model without prompts."""
        from ddpm_jax.cli.given_images import given_images, upscaled
        from ddpm_jax.cli.loading import classes_of, no_class_of, read_network, scheduler_config
        from ddpm_jax.cli.prompted import Job
        from ddpm_jax.pipelines.from_image import STRENGTH

        model = self.model or "digits"
        config = scheduler_config(model, self.revision, self.scheduler_config)
        network = read_network(model, self.revision, self.kind(config))
        scheduler = self.make(config)
        images = given_images(self, STRENGTH if self.mask is None else 1.0)
        if self.upscale is not None:
            images = upscaled(self.upscale, network.config)
        table = self.table(scheduler, model, images.start)
        labels = classes_of(network, self.labels)
        scale = self.guidance or 1.0
        negative = no_class_of(network) if scale > 1 else None
        num = 16 if self.num is None else self.num

        def drawing() -> "Drawing":
            import jax.numpy as jnp

            from ddpm_jax.cli.drawing import LabelDrawing, default_batch_size
            from ddpm_jax.models import UNet2DModel
            from ddpm_jax.pipelines.inputs import image_shape
            from ddpm_jax.pipelines.unconditional import DDPMPipeline

            unet, params = UNet2DModel.from_pretrained(
                model, revision=self.revision, variant=self.variant, dtype=jnp.dtype(self.dtype)
            )
            height, width, _ = image_shape(unet)
            guidance = {
                "guidance_scale": scale,
                "guidance_interval": self.guidance_interval,
                "negative_labels": negative,
            }
            return LabelDrawing(
                pipe=DDPMPipeline(unet=unet, params=params, scheduler=scheduler),
                table=table,
                seed=self.seed,
                labels=labels,
                options=guidance | images.options,
                batch_size=min(num, self.batch_size or default_batch_size(height, width, num)),
                every=self.save_every,
            )

        settings = self._settings(model, scheduler, labels) | {
            name: str(value) for name, value in images.settings.items()
        }
        return Job(num, settings, lambda _number: {}, drawing)

    def _settings(
        self, model: str, scheduler: "Scheduler", labels: tuple[int, ...]
    ) -> dict[str, str]:
        """All settings that determine an image's pixels, except its index, as text by name."""
        from ddpm_jax.cli.fingerprint import fingerprint

        given = {
            "model": model,
            "revision": self.revision,
            "variant": self.variant,
            **fingerprint(model, self.revision, self.variant),
            **self.settings(scheduler, model),
            "seed": self.seed,
            "labels": " ".join(map(str, labels)) or None,
            "guidance": self.guidance,
            "guidance_interval": self.guidance_interval,
            "dtype": self.dtype,
        }
        return {name: str(value) for name, value in given.items() if value is not None}

    def _target(self, job: "Job") -> Grid | Folder:
        out, every = Path(self.out), self.save_every
        if out.suffix.lower() == ".png":
            prompts = [(job.each(i) or {}).get("prompt") for i in range(job.total)]
            one = len(set(prompts)) == 1
            own = {"prompt": str(prompts[0])} if one else {"prompts": json.dumps(prompts)}
            settings = job.settings | (own if prompts[0] is not None else {})
            return Grid(out, settings, columns=self.columns, strips=every is not None, gif=self.gif)
        return Folder(out, job.settings, strips=every is not None, each=job.each)

    def _check(self) -> None:
        least = {
            "height": 1,
            "width": 1,
            "num": 1,
            "batch_size": 1,
            "columns": 1,
            "save_every": 1,
            "steps": 1,
            "seed": 0,
        }
        faults = too_small(self, least)
        if self.guidance is not None and not math.isfinite(self.guidance):
            faults.append(f"--guidance must be a number, got {self.guidance}")
        if self.guidance_interval is not None:
            low, high = self.guidance_interval
            if not 0 <= low < high:
                faults.append(f"--guidance-interval needs 0 <= LOW < HIGH, got {low} {high}")
            prompted = bool(self.prompt or self.prompts_from)  # then it is above 1 by default
            if not (prompted if self.guidance is None else self.guidance > 1):
                faults.append("--guidance-interval needs --guidance above 1")
        if self.seed > LARGEST_SEED:
            faults.append(f"--seed must be at most {LARGEST_SEED}, got {self.seed}")
        if not (self.prompt or self.prompts_from):
            for_prompts = ("negative", "height", "width")
            needs = [f"--{name}" for name in for_prompts if getattr(self, name) is not None]
            if needs:
                faults.append(f"{', '.join(needs)}: only with --prompt or --prompts-from")
        elif self.labels:
            faults.append("--labels are of models without prompts: leave them out")
        if self.mask is not None and self.image is None:
            faults.append("--mask needs --image")
        if self.image is not None and self.has_own_table:
            faults.append("--image needs a scheduler: leave out --table and --scheduler learned")
        if self.upscale is not None and (self.image or self.prompt or self.prompts_from):
            faults.append("--upscale goes with neither --image nor prompts")
        if self.strength is not None and self.image is None:
            faults.append("--strength needs --image")
        if not self.out:
            faults.append("--out must not be empty: pass a name ending in .png, or a folder")
        ending = Path(self.out).suffix.lower()
        if ending != ".png":
            if ending in (".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".tif", ".tiff"):
                faults.append(f"--out must end in .png or be a folder, got {self.out}")
            for name, given in (("columns", self.columns is not None), ("gif", self.gif)):
                if given:
                    faults.append(f"--{name} needs a grid: --out must end in .png")
        if self.gif and self.save_every is None:
            faults.append("--gif needs --save-every")
        if faults:
            raise OptionError("; ".join(faults))
