"""The part of a run's images that one of several processes makes.

Images depend on their index alone, so processes share a run without a word between them: process p
of n makes the images, or the shards of images, p, p + n, p + 2n, ...
"""

from dataclasses import dataclass

from ddpm_jax.cli.common import option_errors


@dataclass(frozen=True)
class Share:
    """One process among those of the same command.

    Attributes:
        index: of this process, from 0.
        count: of all processes.
    """

    index: int = 0
    count: int = 1

    def owns(self, unit: int) -> bool:
        """Whether this process makes an image, or a shard, by its index."""
        return unit % self.count == self.index

    def __str__(self) -> str:
        """The beginning of a message, empty for one process."""
        return "" if self.count == 1 else f"process {self.index} of {self.count}: "


ALL = Share()
"""One process makes everything."""


def own_share(*, cluster: bool) -> Share:
    """This process's, from the environment.

    Args:
        cluster: ask Slurm, Open MPI or PMI.

    Raises:
        OptionError: the environment names a process that cannot be.
    """
    from ddpm_jax.training.processes import find_place

    with option_errors():
        return Share(*find_place(detect=cluster))
