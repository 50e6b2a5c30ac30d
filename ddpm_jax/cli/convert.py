"""`ddpm-jax convert`: a checkpoint in another layout."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro

from ddpm_jax.cli.arguments import OptionalName


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
    """The folder to make; it appears only when it is complete."""

    to: Literal["flax", "orbax", "diffusers"] = "flax"
    """The layout of the weights."""

    overwrite: bool = False
    """Replace an earlier result at DST."""

    revision: OptionalName = None
    """Branch, tag or commit of a source on the hub."""

    variant: OptionalName = None
    """Which of the source's weight files, such as fp16."""

    def run(self) -> None:
        """Convert, and print what was converted."""
        import weights_convert

        try:
            report = weights_convert.convert(
                self._source(),
                self.dst,
                to=self.to,
                overwrite=self.overwrite,
                variant=self.variant,
            )
        except FileExistsError:
            raise FileExistsError(f"{self.dst} exists; --overwrite replaces it") from None
        print(report)

    def _source(self) -> Path:
        """The local path of SRC, downloaded if it is on the hub."""
        from ddpm_jax import hub

        local = Path(self.src)
        if local.exists() and self.src not in hub.bundled_names():
            if self.revision is not None:
                raise ValueError(f"--revision is for hub repositories; {local} is local")
            return local
        revision, variant = self.revision, self.variant
        try:
            return hub.pipeline(self.src, revision=revision, variant=variant)
        except ValueError:  # no pipeline: perhaps a component alone
            return hub.component(self.src, "unet", revision=revision, variant=variant)
