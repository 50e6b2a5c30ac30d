"""`ddpm-jax describe`: the rows of a sampler's table."""

from dataclasses import dataclass
from typing import ClassVar

from ddpm_jax.cli.common import OptionalName, OptionError
from ddpm_jax.cli.schedule import Schedule


@dataclass(frozen=True, kw_only=True)
class Describe(Schedule):
    """Print what a scheduler computes at every network evaluation."""

    EXAMPLES: ClassVar[str] = """\
  ddpm-jax describe --scheduler pndm --steps 10
  ddpm-jax describe --scheduler ddim --steps 5 --eta 0.5 --model google/ddpm-cat-256
  ddpm-jax describe --scheduler euler --steps 8 --set use_karras_sigmas=true s_churn=2"""

    model: OptionalName = None
    """Use the config of this model's scheduler. By default the scheduler's own defaults apply."""

    revision: OptionalName = None
    """Branch, tag or commit of a model on the hub."""

    def run(self) -> None:
        """Print the table."""
        from ddpm_jax.cli.loading import DEFAULT, scheduler_config
        from ddpm_jax.tables.describe import describe

        if self.model is None and self.revision is not None:
            raise OptionError("--revision needs a model: pass --model")
        given = self.scheduler_config
        if self.model is None and given is None:
            given = DEFAULT
        config = scheduler_config(self.model, self.revision, given)
        print(describe(self.table(self.make(config), self.model)))
