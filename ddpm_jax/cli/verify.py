"""`ddpm-jax verify`: a checkpoint's output beside the published one."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import tyro

from ddpm_jax.cli.common import OptionalName, OptionError


@dataclass(frozen=True, kw_only=True)
class Verify:
    """Compare the output of a model's network with the one that diffusers' authors published for
    this checkpoint: whether it was read as they meant it. No image is made.
    """

    EXAMPLES: ClassVar[str] = """\
  ddpm-jax verify google/ddpm-cifar10-32
  ddpm-jax verify cifar --as google/ddpm-cifar10-32"""

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """A hub id or a local folder."""

    published_as: Annotated[
        str | None, tyro.conf.arg(name="as", metavar="NAME", help_behavior_hint="")
    ] = None
    """The hub id of the checkpoint, if MODEL is another name for it, such as a folder."""

    revision: OptionalName = None
    """Branch, tag or commit of a model on the hub."""

    variant: OptionalName = None
    """Which of a model's weight files, such as fp16."""

    def run(self) -> None:
        """Print that they agree, or raise ValueError."""
        from ddpm_jax.evaluation import published
        from ddpm_jax.hub.files import listed
        from ddpm_jax.models import UNet2DModel

        name = self.published_as or self.name
        if name not in published.OUTPUTS:
            hint = "" if self.published_as else "; for a copy of one of them pass --as"
            raise OptionError(
                f"cannot verify {name}: no output of it is published. There is one of "
                f"{listed(published.OUTPUTS)}{hint}"
            )
        model, params = UNet2DModel.from_pretrained(
            self.name, revision=self.revision, variant=self.variant
        )
        found = published.compare(model, params, name)
        count, off = len(found.published), f"differ by up to {found.difference:.2g}"
        if not found.agree:
            raise ValueError(
                f"{self.name} is not {name}: the first {count} values of its output {off}, at most "
                f"{published.TOLERANCE:g} is right. The weights or config.json are others, such as "
                "attention_head_dim"
            )
        print(f"{self.name} is {name}: the first {count} values of its output {off}")
