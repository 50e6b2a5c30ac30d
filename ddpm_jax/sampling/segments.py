"""The loop of the pipelines: short compiled segments of a table, with plain Python between them.

One program, `advance`, runs the rows start..stop-1 of a padded table with traced bounds. So a new
number of steps or a new segment compiles nothing. A segment lasts about 0.1 s. Then the progress
bar moves, a preview is shown, or Ctrl-C stops the run. (Ctrl-C cannot interrupt one evaluation of
the network and waits for its end.) The result equals that of `ddpm_jax.sample`, bit for bit.

Previews are a register: a table gets one more register, whose update is the predicted x0. It stores
the last row's x0 at the cost of one multiply-add.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Key

from ddpm_jax._typing import Registers
from ddpm_jax.sampling.loops import advance
from ddpm_jax.tables.table import Table, pad, wider_mix

SEGMENT_SECONDS = 0.1
"""Short enough for a bar and Ctrl-C to feel immediate; a segment adds 1 to 2 ms to its rows."""


class Progress(NamedTuple):
    """The progress of a run.

    Attributes:
        done: number of finished rows (network evaluations).
        registers: the registers after them. The sample is `registers[0]`.
    """

    done: int
    registers: Registers


def run(
    denoise: Callable[..., Array],
    params: Any,
    table: Table,
    x_T: Float[Array, "b h w c"],
    keys: Key[Array, "b"] | None,
    *,
    every: int | None = None,
    place: Callable[[Table], Table] = jax.device_put,
) -> Iterator[Progress]:
    """Samples, and yields the state after each segment. The last registers are the result.

    Args:
        denoise: as in `ddpm_jax.sample`, static.
        params: its first argument, any pytree.
        table: a scheduler's table.
        x_T: register 0 at row 0, from `ddpm_jax.prior`.
        keys: one for each image; None for a table without noise.
        every: also stop after every `every` rows, counted from the first.
        place: copies the padded table to the devices.
    """
    total, registers = len(table), table.init(x_T)
    padded = place(pad(table))
    done, rows = 0, 1  # one row first, because the time of a row is not known yet
    while done < total:
        stop = min(done + rows, total)
        if every is not None:
            stop = min(stop, (done // every + 1) * every)
        began = time.perf_counter()
        registers = advance(denoise, params, padded, registers, keys, done, stop)
        jax.block_until_ready(registers)
        rows = segment_length(stop - done, time.perf_counter() - began)
        done = stop
        yield Progress(done, registers)


def segment_length(rows: int, seconds: float) -> int:
    """Rows for the next segment, so that it lasts about `SEGMENT_SECONDS`; at least 1.

    `seconds` is the time of the last `rows`. If it includes a compilation, the next segment is too
    short, never too long.
    """
    # 1e-9 only prevents a division by zero.
    return max(1, math.ceil(SEGMENT_SECONDS * rows / max(seconds, 1e-9)))


def out_of_memory(error: Exception) -> bool:
    """Whether the error means that the host or a device is out of memory."""
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)


def with_preview(table: Table) -> Table:
    """The same sampler with one more register at the end: the x0 predicted by the previous row."""
    own = table.num_registers
    wide = wider_mix(np.asarray(table.mix), own + 1, x0=table.refine is not None)
    wide[:, own] = 0
    if table.refine is None:
        wide[:, own, [0, own + 1]] = table.to_x0
    else:
        wide[:, own, own + 2] = 1
    return replace(table, mix=wide)
