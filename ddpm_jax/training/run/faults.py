"""Too little memory and too little room, told in a sentence with what to do."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

import jax

from ddpm_jax.sampling.segments import out_of_memory
from ddpm_jax.training.run.plan import Plan
from ddpm_jax.training.run.settings import Loop

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}


@contextmanager
def told(plan: Plan) -> Iterator[None]:
    """Raises what the block raises, but for two causes with another text.

    Raises:
        MemoryError: an update does not fit into the device's memory.
        OSError: the run's folder cannot be written to.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        text = (
            f"{plan.out} cannot be written to: {error}; what is there is kept, and resume goes on"
        )
        raise OSError(text) from error
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        if out_of_memory(error):
            raise MemoryError(f"out of memory; try {_less_memory(plan.settings.loop)}") from error
        raise


def _less_memory(loop: Loop) -> str:
    """What the user may set otherwise."""
    ways = [] if loop.remat else ["loop.remat"]
    if loop.dtype == "float32":
        ways.append("loop.dtype bfloat16")
    if loop.batch_size > loop.accumulate:
        ways.append(f"loop.accumulate {2 * loop.accumulate}")
    return ", ".join([*ways, "or a smaller network"])
