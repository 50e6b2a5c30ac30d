"""`ddpm-jax convert`: a checkpoint in another layout."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import tyro

from ddpm_jax.cli.common import OptionalName

if TYPE_CHECKING:
    from weights_convert import Checkpoint


@dataclass(frozen=True, kw_only=True)
class Convert:
    """Convert a checkpoint to Flax or orbax, or back to a folder that diffusers loads."""

    EXAMPLES: ClassVar[str] = """\
  ddpm-jax convert google/ddpm-cat-256 cat --to flax
  ddpm-jax convert cat cat-for-torch --to diffusers
  ddpm-jax convert diffusion_pytorch_model.bin converted --to orbax --overwrite"""

    src: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SRC")]
    """A pipeline's or a component's folder, a weight file, a hub id or a bundled name."""

    dst: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DST")]
    """The folder to create; it appears only when it is complete."""

    to: Literal["flax", "orbax", "diffusers"] = "flax"
    """The layout of the weights."""

    dtype: Annotated[
        Literal["float32", "float16", "bfloat16"] | None, tyro.conf.arg(help_behavior_hint="")
    ] = None
    """Dtype that all weights are rounded to. Default: the stored dtype."""

    overwrite: bool = False
    """Overwrite an earlier result at DST."""

    revision: OptionalName = None
    """Branch, tag or commit of a source on the hub."""

    variant: OptionalName = None
    """Which of the source's weight files, such as fp16."""

    def run(self) -> None:
        """Convert, and print a summary."""
        import weights_convert

        source = self._source()
        if not self.dst.exists() or self.overwrite:
            _check_weights(source, self.variant)
        try:
            report = weights_convert.convert(
                source,
                self.dst,
                to=self.to,
                overwrite=self.overwrite,
                variant=self.variant,
                dtype=self.dtype,
            )
        except FileExistsError:
            raise FileExistsError(f"{self.dst} exists: pass --overwrite to replace it") from None
        print(report)

    def _source(self) -> Path:
        """The local path of SRC. A hub repository is downloaded."""
        from ddpm_jax.hub import hub
        from ddpm_jax.models import UNet2DModel
        from ddpm_jax.schedulers import Scheduler

        local = Path(self.src)
        if local.exists() and self.src not in hub.bundled_names():
            if self.revision is not None:
                raise ValueError(f"--revision is for hub repositories; {local} is local")
            return local
        revision, variant = self.revision, self.variant
        try:
            wanted = [UNet2DModel.files, Scheduler.files]
            return hub.pipeline(self.src, wanted, revision=revision, variant=variant)
        except ValueError:  # not a pipeline, but it may be a component
            return hub.component(self.src, UNet2DModel.files, revision=revision, variant=variant)


def _check_weights(source: Path, variant: str | None) -> None:
    """Check that the weights match their config, if it is the config of a `UNet2DModel`.

    Raises:
        ValueError: lists every tensor that is missing, is unexpected or has a wrong shape.
        OSError: the source does not exist or has no weights.
    """
    from ddpm_jax.hub.files import read_json
    from ddpm_jax.models import UNet2DModel
    from weights_convert import open_weights
    from weights_convert.layout import CONFIG, locate

    found = locate(source, variant)
    path = next((path for place, path in found.copies.items() if Path(place).name == CONFIG), None)
    config = {} if path is None else read_json(path)
    if config.get("_class_name") not in UNet2DModel.files.classes:
        return
    with open_weights(found.weights) as checkpoint:
        try:
            _compare(checkpoint, config)
        except ValueError as error:
            raise ValueError(f"{found.weights} does not match {path}: {error}") from None


def _compare(checkpoint: "Checkpoint", config: dict[str, Any]) -> None:
    import numpy as np

    from ddpm_jax.models import UNet2DModel
    from weights_convert import to_flax

    # Only shapes and dtypes are compared: a broadcast zero replaces each tensor, and none is read.
    dtypes = checkpoint.dtypes
    shapes = {
        name: np.broadcast_to(np.zeros((), dtypes[name]), shape)
        for name, shape in checkpoint.shapes.items()
    }
    to_flax(shapes, UNet2DModel.from_config(config).shapes(), put=lambda path, array: None)
