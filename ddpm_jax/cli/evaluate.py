"""`ddpm-jax evaluate`: how good the images of a model are, by the metrics of the literature."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import tyro

from ddpm_jax.cli import cache
from ddpm_jax.cli.common import (
    DESCRIBED,
    Labels,
    OptionalCount,
    OptionalName,
    OptionalNumber,
    OptionError,
    flag,
    too_small,
)
from ddpm_jax.cli.output import check_writable
from ddpm_jax.cli.schedule import Schedule

if TYPE_CHECKING:
    from ddpm_jax.cli.sample import Sample
    from ddpm_jax.evaluation.metrics import Metric

ENOUGH = 50_000
"""Images of the FIDs in papers."""


@dataclass(frozen=True, kw_only=True)
class Evaluate(Schedule):
    """Compare images with real ones by FID, KID and the like. docs/evaluation.md says what the
    numbers mean, and which of them compare with published ones.
    """

    EXAMPLES: ClassVar[str] = """\
  ddpm-jax evaluate google/ddpm-ema-church-256 --num 50000 --against churches/ --resolution 256
  ddpm-jax evaluate samples/ --against cifar10-train.npz --metrics fid,kid,is,pr
  ddpm-jax evaluate samples/ --against photos/ --resize clean-fid --save-stats photos-stats.npz
  ddpm-jax evaluate samples/ --against photos-stats.npz --resize clean-fid
  ddpm-jax evaluate samples/ --metrics is --out score.json
  ddpm-jax evaluate digits --num 500 --against digits --features digits --metrics fid,is
  ddpm-jax evaluate samples/ --against photos/ --metrics kid --metric-options kid.subset_size=200
  ddpm-jax evaluate digits --against digits --metrics nll --metric-options nll.num=64"""

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL|IMAGES")]
    """A model to draw images from, as for sample; or images: a folder of files or shards that
    sample wrote, a .npy or .npz file. Write ./digits for a folder of a bundled model's name."""

    against: OptionalName = None
    """The real images: a folder, a file or a data set as for train --data.name; or a .npz file of
    statistics (mu, sigma), which suffices for fid."""

    metrics: str = "fid"
    """Names with commas: fid, kid, is (Inception score), pr (precision and recall), and nll (bits
    per dimension of the real images under a model, which draws none)."""

    metric_options: Annotated[
        tuple[str, ...], tyro.conf.arg(metavar="METRIC.FIELD=VALUE ...", help_behavior_hint="")
    ] = ()
    """Options of the metrics, which by default are kid.subsets=100, kid.subset_size=1000,
    kid.seed=2020, is.splits=10, is.seed=2020, pr.neighbors=3, nll.method=bound (or flow),
    nll.num=0 (the first so many real images; 0 is all), nll.timesteps=0 (evaluations of an image
    by the bound; 0 is all timesteps), nll.seed=0, and by the flow nll.probe=rademacher (or
    gaussian, exact), nll.probes=1, nll.tolerance=1e-5."""

    features: Literal["inception", "digits"] = "inception"
    """The network that images are compared by: FID's Inception-v3, or a small one of 8x8 grey
    digits that comes with the package."""

    weights: OptionalName = None
    """The file with the weights of "inception", as pytorch-fid or torch-fidelity publish it. By
    default it is downloaded once (96 MB) into the user's cache folder."""

    resize: Annotated[
        Literal["pytorch-fid", "torch-fidelity", "clean-fid", "none"] | None,
        DESCRIBED,
    ] = None
    """How images get the 299x299 pixels of "inception": as that program does. By default
    pytorch-fid; "none" takes images of that size."""

    num: OptionalCount = None
    """Number of images drawn from a model, which needs it, with prompts of each prompt; or of given
    images, by default all. nll alone draws none and takes nll.num real images."""

    batch_size: OptionalCount = None
    """Images computed together on all devices of this machine, which each take an equal part. By
    default 50 for each device, and of a model's images as sample has it."""

    seed: int = 0
    """Of the images drawn from a model, as for sample."""

    prompts_from: OptionalName = None
    """For models of text to image: a text file with a prompt on each line."""

    labels: Labels = ()
    """For models with classes, as for sample."""

    guidance: OptionalNumber = None
    """The scale of classifier-free guidance, as for sample."""

    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Dtype of the model's computation. Features are always float32."""

    revision: OptionalName = None
    """Branch, tag or commit of a model on the hub."""

    variant: OptionalName = None
    """Which of a model's weight files, such as fp16."""

    resolution: OptionalCount = None
    """Resize the shorter side of the real images to this, and crop the center, as train does."""

    split: OptionalName = None
    """Split of the real images, if they are a Hugging Face data set."""

    subset: OptionalName = None
    """Configuration of such a data set that has several."""

    image_column: OptionalName = None
    """Column of such a data set with the images, or the array in an .npz file."""

    label_column: OptionalName = None
    """The same for the classes of the real images, which nll of a model with classes needs."""

    save_stats: OptionalName = None
    """Write the statistics of the real images here, for later runs: a name ending in .npz."""

    out: OptionalName = None
    """Write the numbers and all that is needed to repeat them here: a name ending in .json."""

    no_cache: bool = False
    """Do not store compiled programs in the user's cache folder."""

    def run(self) -> None:
        """Compute the metrics, print them, and write the record."""
        from ddpm_jax.cli import scores
        from ddpm_jax.cli.metric_options import chosen

        metrics = chosen(self.metrics, self.metric_options)
        self._check(metrics)
        if not self.no_cache:
            cache.use(cache.folder())
        found = scores.measure(self, metrics)
        print(found.table())
        if self.out is not None:
            found.save(Path(self.out))
            print(f"{Path(self.out).resolve()}")

    @property
    def draws(self) -> bool:
        """Whether the images are drawn from a model."""
        from ddpm_jax.cli.evaluated import is_model

        return is_model(self.name)

    def sample(self) -> "Sample":
        """The run of `sample` that draws the images."""
        from ddpm_jax.cli.sample import Sample

        shared = {name: getattr(self, name) for name in OF_DRAWING}
        return Sample(model=self.name, num=self.num, batch_size=self.batch_size, **shared)

    def _check(self, metrics: "list[Metric]") -> None:
        """Raises OptionError with all faults that need no file."""
        faults = too_small(self, {"num": 1, "batch_size": 1, "resolution": 1})
        needs = [metric.name for metric in metrics if metric.of_reference or metric.of_model]
        if needs and self.against is None:
            faults.append(f"{', '.join(needs)} needs --against with the real images")
        if not needs and self.against is not None:
            faults.append(f"--against is not used by {self.metrics}: leave it out")
        of_reference = ("resolution", "split", "subset", "image_column", "label_column")
        of_reference += ("save_stats",)
        if self.against is None:
            faults += [f"{flag(name)} needs --against" for name in self._changed(of_reference)]
        if self.features != "inception":
            given = self._changed(("weights", "resize"))
            faults += [f"{flag(name)} is of --features inception" for name in given]
        for name, ending in (("save_stats", ".npz"), ("out", ".json")):
            value = getattr(self, name)
            if value is not None and Path(value).suffix != ending:
                faults.append(f"{flag(name)} must end in {ending}, got {value}")
        faults += self._model_faults(metrics)
        if faults:
            raise OptionError("; ".join(faults))
        if self.draws and _compares_samples(metrics):
            from ddpm_jax.cli.sample_options import check_options
            from ddpm_jax.cli.share import ALL

            check_options(self.sample(), ALL)
        for value in (self.save_stats, self.out):
            if value is not None:
                check_writable(Path(value).parent)

    def _model_faults(self, metrics: "list[Metric]") -> Iterator[str]:
        """Options that go with a model, or with samples, and what is compared has none."""
        of_model = [metric.name for metric in metrics if metric.of_model]
        if not self.draws:
            if of_model:
                yield f"{', '.join(of_model)} is of a model, and {self.name} is images"
            given = self._changed(OF_DRAWING)
            yield from (f"{flag(name)} is of a model, and {self.name} is none" for name in given)
        elif not _compares_samples(metrics):
            for name in self._changed(OF_SAMPLES):
                yield f"{flag(name)} is of samples, and {self.metrics} has none"
            if options := [] if self.eta is not None else list(self.options()):
                yield f"{', '.join(options)} is an option of a run, and {self.metrics} has none"
            if self.num is not None:
                yield "nll.num of --metric-options is the number of real images"
        elif self.num is None:
            yield (
                f"{self.name} is a model: pass --num, the number of images to draw; published FIDs "
                f"are of {ENOUGH:,}"
            )

    def _changed(self, names: tuple[str, ...]) -> list[str]:
        """Those options that do not have their defaults."""
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        return [name for name in names if getattr(self, name) != defaults[name]]


OF_MODEL = ("dtype", "revision", "variant")
OF_DRAWING = (
    *(field.name for field in dataclasses.fields(Schedule)),
    *("seed", "prompts_from", "labels", "guidance", *OF_MODEL),
)
"""Options that `sample` has under the same names, for images that are drawn."""


OF_SAMPLES = (
    *(name for name in OF_DRAWING if name not in ("scheduler_config", "overrides", *OF_MODEL)),
    *("num", "features", "weights", "resize", "save_stats"),
)
"""Options that only metrics of samples use."""


def _compares_samples(metrics: "list[Metric]") -> bool:
    return any(metric.of_samples for metric in metrics)
