"""The devices of this process: each computes its part of every batch.

Params are copied to each device once. During a run nothing moves between devices, since every image
has its own key.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ddpm_jax.sampling.segments import out_of_memory


@dataclass(frozen=True)
class Devices:
    """Where batches and params are.

    Attributes:
        count: number of devices.
        split: the sharding of a batch; None with one device.
        whole: the sharding of params; None with one device.
    """

    count: int = 1
    split: NamedSharding | None = None
    whole: NamedSharding | None = None

    def batch_size(self, given: int | None, per_device: int, num: int) -> int:
        """Images computed together: as many for each device, and no more than `num` needs.

        Args:
            given: the user's number for all devices together, or None.
            per_device: the default for one device.
            num: images of the run.
        """
        wanted = per_device * self.count if given is None else given
        return -(-min(wanted, num) // self.count) * self.count


@contextmanager
def memory_advice(size: int, devices: int, otherwise: str | None = None) -> Iterator[None]:
    """An error for lack of memory becomes a MemoryError that names a batch size to try, smaller
    than `size` on so many devices. Where there is none it names the option `otherwise`, if any.
    """
    try:
        yield
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        smaller = f"--batch-size {max(1, size // devices // 2) * devices}"
        advice = smaller if size > devices else otherwise
        if advice is None or not out_of_memory(error):
            raise
        raise MemoryError(f"out of memory: try {advice}") from error


def local_devices() -> Devices:
    """All devices of this process."""
    return over(jax.local_devices())


def over(devices: Sequence[Any]) -> Devices:
    """These devices, each with an equal part of a batch. One alone has no sharding."""
    if len(devices) == 1:
        return Devices()
    mesh = Mesh(np.array(devices), ("batch",), axis_types=(AxisType.Auto,))
    split, whole = PartitionSpec("batch"), PartitionSpec()
    return Devices(len(devices), NamedSharding(mesh, split), NamedSharding(mesh, whole))
