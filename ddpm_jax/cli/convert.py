"""`ddpm-jax convert`: a checkpoint in another layout."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import tyro

from ddpm_jax._typing import PredictionType
from ddpm_jax.cli.common import DESCRIBED, OptionalCount, OptionalName

if TYPE_CHECKING:
    from ddpm_jax.hub.component import ComponentFiles
    from ddpm_jax.models import Model
    from weights_convert import Checkpoint


@dataclass(frozen=True, kw_only=True)
class Convert:
    """Convert a checkpoint to Flax or orbax, or back to a folder that diffusers loads. A model in
    one file, of Stable Diffusion or an unconditional UNet, becomes such a folder.
    """

    EXAMPLES: ClassVar[str] = """\
  ddpm-jax convert google/ddpm-cat-256 cat --to flax
  ddpm-jax convert cat cat-for-torch --to diffusers
  ddpm-jax convert diffusion_pytorch_model.bin converted --to orbax --overwrite
  ddpm-jax convert v1-5-pruned-emaonly.ckpt sd15 --tokenizer clip-vit-large-patch14
  ddpm-jax convert model-790000.ckpt cifar10 --sample-size 32 --variance-type fixed_large"""

    src: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SRC")]
    """A pipeline's or a component's folder, a weight file, a hub id or a bundled name."""

    dst: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DST")]
    """The folder to create; it appears only when it is complete."""

    to: Annotated[Literal["flax", "orbax", "diffusers"] | None, DESCRIBED] = None
    """The layout of the weights. Default: diffusers from a model in one file, else flax."""

    dtype: Annotated[Literal["float32", "float16", "bfloat16"] | None, DESCRIBED] = None
    """Dtype that all weights are rounded to. Default: the stored dtype."""

    overwrite: bool = False
    """Overwrite an earlier result at DST."""

    revision: OptionalName = None
    """Branch, tag or commit of a source on the hub."""

    variant: OptionalName = None
    """Which of the source's weight files, such as fp16."""

    component: OptionalName = None
    """Convert only this component of a pipeline, such as vae."""

    ema: bool = False
    """Take the moving average of the weights, where a file has both."""

    layout: Annotated[
        Literal["stable-diffusion", "ddpm", "guided", "consistency", "lucidrains"] | None,
        DESCRIBED,
    ] = None
    """Of a model in one file: its layout, if its tensors do not tell it."""

    prediction_type: Annotated[PredictionType | None, DESCRIBED] = None
    """Of a model in one file: what it predicts, if the file does not say it."""

    tokenizer: Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="")] = None
    """Of a Stable Diffusion in one file: a folder to copy the tokenizer from."""

    without_depth_estimator: bool = False
    """Of a Stable Diffusion in one file: leave its depth estimator out."""

    sample_size: OptionalCount = None
    """Of an unconditional UNet in one file, as are those below: width and height of its images. The
    error about missing options says which a file needs."""

    num_heads: OptionalCount = None
    """Heads of every attention."""

    num_head_channels: OptionalCount = None
    """Channels of one head, in place of --num-heads."""

    head_order: Annotated[Literal["legacy", "new"] | None, DESCRIBED] = None
    """Whether queries, keys and values of all heads follow each other (new), or those of each
    head."""

    num_train_timesteps: OptionalCount = None
    """Timesteps of the training, or levels of a consistency model."""

    beta_schedule: Annotated[Literal["linear", "squaredcos_cap_v2"] | None, DESCRIBED] = None
    """Noise schedule of the training."""

    variance_type: Annotated[Literal["fixed_small", "fixed_large"] | None, DESCRIBED] = None
    """Variance of the sampling, if the network does not learn it."""

    rescale_timesteps: Annotated[Literal["yes", "no"] | None, DESCRIBED] = None
    """Whether the network was told its timesteps as parts of 1000."""

    def run(self) -> None:
        """Convert, and print a summary."""
        import weights_convert

        # The options of a UNet have the names of its settings.
        own: dict[str, Any] = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(weights_convert.Settings)
        }
        if self.rescale_timesteps is not None:
            own["rescale_timesteps"] = self.rescale_timesteps == "yes"
        try:
            report = weights_convert.convert(
                self._source(),
                self.dst,
                to=self.to,
                overwrite=self.overwrite,
                variant=self.variant,
                dtype=self.dtype,
                component=self.component,
                single=weights_convert.SingleOptions(
                    ema=self.ema,
                    without_depth_estimator=self.without_depth_estimator,
                    prediction_type=self.prediction_type,
                    tokenizer=self.tokenizer,
                    layout=self.layout,
                    settings=weights_convert.Settings(**own),
                ),
                check=_check_weights,
            )
        except FileExistsError:
            raise FileExistsError(f"{self.dst} exists: pass --overwrite to replace it") from None
        print(report)

    def _source(self) -> Path:
        """The local path of SRC. A hub repository is downloaded."""
        from ddpm_jax.hub import hub, pipeline_folder
        from ddpm_jax.models import UNet2DModel

        local = Path(self.src)
        if local.exists() and self.src not in hub.bundled_names():
            if self.revision is not None:
                raise ValueError(f"--revision is for hub repositories; {local} is local")
            return local
        revision, variant = self.revision, self.variant
        try:
            index = pipeline_folder.read(hub.pipeline(self.src, (), revision=revision))
        except ValueError:  # not a pipeline, but it may be a component
            return hub.component(self.src, UNet2DModel.files, revision=revision, variant=variant)
        names = index.components if self.component is None else (self.component,)
        wanted = [files for folder, files in _components().items() if folder in names]
        return hub.pipeline(self.src, wanted, revision=revision, variant=variant)


def _models() -> list[type["Model"]]:
    from ddpm_jax import models

    found = [getattr(models, name) for name in models.__all__]
    kinds = [one for one in found if isinstance(one, type) and issubclass(one, models.Model)]
    return [kind for kind in kinds if kind is not models.Model]


def _components() -> dict[str, "ComponentFiles"]:
    """The files of every component that is fetched from a hub repository, by folder."""
    from ddpm_jax.hub.component import ComponentFiles
    from ddpm_jax.schedulers import Scheduler
    from ddpm_jax.text.tokenizer import CLIPTokenizer

    images = ComponentFiles(folder="feature_extractor", config="preprocessor_config.json")
    known = (Scheduler.files, CLIPTokenizer.files, images, *(kind.files for kind in _models()))
    return {files.folder: files for files in known}


def _check_weights(weights: Path, config: Mapping[str, Any], checkpoint: "Checkpoint") -> None:
    """Raises ValueError, with every fault, if weights do not match the config of a network that
    this library has.
    """
    import numpy as np

    from weights_convert import to_flax

    named = config.get("_class_name") or next(iter(config.get("architectures") or []), None)
    kind = next((kind for kind in _models() if named in kind.files.classes), None)
    if kind is None:
        return
    # Only shapes and dtypes are compared: a broadcast zero replaces each tensor, and none is read.
    dtypes = checkpoint.dtypes
    shapes = {
        name: np.broadcast_to(np.zeros((), dtypes[name]), shape)
        for name, shape in checkpoint.shapes.items()
    }
    try:
        expected = kind.from_config(config).shapes()
        to_flax(shapes, expected, put=lambda path, array: None, rename=kind._param_name)
    except ValueError as error:
        raise ValueError(f"{weights} does not match its config: {error}") from None
