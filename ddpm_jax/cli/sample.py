"""`ddpm-jax sample`: generate images from a model."""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from ddpm_jax.cli import cache, deterministic
from ddpm_jax.cli.common import (
    Labels,
    OptionalCount,
    OptionalName,
    OptionalNumber,
    OptionalRange,
    OptionError,
    Prompts,
    counted,
)
from ddpm_jax.cli.output import Folder, Grid
from ddpm_jax.cli.sample_options import check_options
from ddpm_jax.cli.schedule import Schedule
from ddpm_jax.cli.shards import SHARD_SIZE, Shards
from ddpm_jax.cli.share import Share, own_share
from ddpm_jax.cli.writer import Writer
from ddpm_jax.images import MODES

if TYPE_CHECKING:
    from ddpm_jax.cli.job import Job


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
  ddpm-jax sample --num 50000 --format npz --out many/
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
    """Images computed together on all devices of this machine, which each take an equal part. The
    default depends on the image size and is at most 64 times the number of devices."""

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

    format: Literal["png", "npz"] = "png"
    """Files of a folder: "png" has one image, "npz" many: arr_0 is their pixels (uint8, N x H x W x
    C), arr_1 their classes if the model has any."""

    shard_size: OptionalCount = None
    """With --format npz: images in a file, by default 1000."""

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

    cluster: bool = False
    """Processes that Slurm's srun, Open MPI or PMI started share the images of a folder. Other
    programs set JAX_NUM_PROCESSES and JAX_PROCESS_ID instead."""

    deterministic: bool = False
    """On a GPU: the same bits from every run, at some cost in speed. Otherwise XLA may choose other
    algorithms whenever it compiles."""

    no_cache: bool = False
    """Do not store compiled programs in the user's cache folder."""

    def run(self) -> None:
        """Generate the missing images, and print their path."""
        share = own_share(cluster=self.cluster)
        check_options(self, share)
        began = time.perf_counter()
        if self.deterministic:
            deterministic.use()
        found = self.job()
        target = self._target(found, share)
        own, wanted = target.own(found.total), target.missing(found.total)
        if wanted:
            if not self.no_cache:
                cache.use(cache.folder())
            try:
                with Writer(target.save) as writer:
                    for batch in found.drawing(own).draw(wanted):
                        writer.put(batch)
            except KeyboardInterrupt:
                raise KeyboardInterrupt(f"interrupted; {target.if_interrupted}") from None
        place, seconds = target.finish(), time.perf_counter() - began
        existed = f", {own - len(wanted)} already existed" if len(wanted) < own else ""
        print(f"{share}{counted(len(wanted), 'image')} in {seconds:.1f} s{existed}: {place}")

    def job(self) -> "Job":
        """What is made, before any weights are read."""
        from ddpm_jax.cli import labelled, prompted

        prompts = prompted.prompts_of(self.prompt, self.prompts_from)
        if prompts:
            return prompted.job(self, self.model or "avatars", prompts)
        return labelled.job(self, self.model or "digits")

    def _target(self, job: "Job", share: Share) -> Grid | Folder | Shards:
        out, strips = Path(self.out), self.save_every is not None
        if self.format == "npz":
            return Shards(
                out,
                job.settings,
                size=SHARD_SIZE if self.shard_size is None else self.shard_size,
                each=job.each,
                classes=job.classes,
                share=share,
            )
        if job.channels not in MODES:
            raise OptionError(f"images of {job.channels} channels need --format npz and a folder")
        if out.suffix.lower() == ".png":
            prompts = [(job.each(i) or {}).get("prompt") for i in range(job.total)]
            one = len(set(prompts)) == 1
            own = {"prompt": str(prompts[0])} if one else {"prompts": json.dumps(prompts)}
            settings = job.settings | (own if prompts[0] is not None else {})
            return Grid(out, settings, columns=self.columns, strips=strips, gif=self.gif)
        return Folder(out, job.settings, strips=strips, each=job.each, share=share)
