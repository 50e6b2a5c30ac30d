"""What single changes gain or cost in sampling: `python -m benchmarks.levers`.

A lever is one change of the compiled loop: an option of XLA, another program of a layer, or another
loop. Each runs in turn with the loop as it is. The gain is the median over rounds of the time as it
is over the time with the change: above 1 the change is faster. Outputs are compared first.

On a GPU it ends in about `--minutes` (6): a lever that is not begun by then is named. The rows
stand in the order of interest. On a CPU the options of GPUs are left out.
"""

import math
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

import ddpm_jax as dj
from benchmarks import contenders, report, rounds
from benchmarks.networks import NETWORKS
from benchmarks.sampling import Ours
from ddpm_jax.models.layers import basic, cpu

BATCHES = {"cpu": {"cifar10": (1, 16)}, "gpu": {"cifar10": (256, 1), "cat256": (16,)}}
PRECISIONS = {"cpu": ("float32",), "gpu": ("bfloat16",)}
AS_IT_IS = "as it is"

NOTES = """\
Gain: milliseconds of an evaluation as the library is over those with the change, within a round;
median and quartiles. Above 1 the change is faster. Compiled: seconds to trace and compile the loop.
Difference: the largest, of three steps, from the loop as it is, relative to the largest value."""

Loop = Callable[..., jax.Array]
"""loop(params, table, x_T, start, stop): register 0 after rows start, ..., stop - 1."""


class Lever(NamedTuple):
    """A change of the loop."""

    name: str
    devices: tuple[str, ...] = ("cpu", "gpu")
    options: Mapping[str, Any] | None = None
    """XLA's, for `jax.jit(compiler_options=...)`."""
    within: Callable[[], AbstractContextManager[Any]] = nullcontext
    """In force while the loop is traced."""
    loop: Callable[[Ours], Loop] | None = None
    """Another loop; None: the library's."""


def graphs(*kinds: str) -> dict[str, str]:
    """Command buffers (CUDA graphs) of XLA's default kinds and of these."""
    default = ("FUSION", "CUBLAS", "CUBLASLT", "CUSTOM_CALL", "CUDNN", "DYNAMIC_SLICE_FUSION")
    return {"xla_gpu_enable_command_buffer": ",".join((*default, *kinds))}


@contextmanager
def replaced(module: Any, name: str, value: Any) -> Iterator[None]:
    """An attribute, for a while."""
    former = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, former)


def two_passes(x: jax.Array, groups: int) -> tuple[jax.Array, jax.Array]:
    """`moments` with the mean first, and then the mean square around it."""
    b, h, w, c = x.shape

    def over_group(values: jax.Array) -> jax.Array:
        sums = values.sum((1, 2)).reshape(b, groups, c // groups).sum(-1)
        return jnp.repeat(sums / (h * w * (c // groups)), c // groups, axis=-1)

    mean = over_group(x)
    return mean, over_group(jnp.square(x - mean[:, None, None]))


def unrolled(rows: int) -> Callable[[Ours], Loop]:
    """The loop with so many rows in one pass of it."""

    def make(ours: Ours) -> Loop:
        def loop(params: Any, table: Any, x: jax.Array, start: Any, stop: Any) -> jax.Array:
            def some(first: Any, registers: Any, count: int) -> Any:
                for i in range(count):
                    row = table.row(first + i)
                    output = ours.denoise(params, row.in_scale * registers[0], row.timestep)
                    registers = dj.step(row, registers, output)
                return registers

            def several(i: Any, registers: Any) -> Any:
                return some(start + i * rows, registers, rows)

            def one(i: Any, registers: Any) -> Any:
                return some(i, registers, 1)

            whole = (stop - start) // rows
            registers = lax.fori_loop(0, whole, several, table.init(x))
            return lax.fori_loop(start + whole * rows, stop, one, registers)[0]

        return loop

    return make


def embedded_before(ours: Ours) -> Loop:
    """The loop with the time embedding's part of every block computed for all rows before it."""

    def parts(params: Any, timestep: jax.Array) -> dict[tuple[str, ...], jax.Array]:
        found: dict[tuple[str, ...], jax.Array] = {}

        def keep(call: Any, given: Any, options: Any, context: Any) -> Any:
            value = call(*given, **options)
            if context.module.name == "time_emb_proj":
                found[context.module.path] = value[0]
            return value

        with nn.intercept_methods(keep):
            ours.denoise(params, jnp.zeros_like(ours.x_T[:1]), timestep)
        return found

    def loop(params: Any, table: Any, x: jax.Array, start: Any, stop: Any) -> jax.Array:
        # XLA drops the rest of the network, which nothing reads.
        ready = jax.vmap(partial(parts, params))(table.timestep)

        def body(i: Any, registers: Any) -> Any:
            row = table.row(i)

            def take(call: Any, given: Any, options: Any, context: Any) -> Any:
                if context.module.name == "time_emb_proj":
                    return ready[context.module.path][i][None]
                return call(*given, **options)

            with nn.intercept_methods(take):
                output = ours.denoise(params, row.in_scale * registers[0], row.timestep)
            return dj.step(row, registers, output)

        return lax.fori_loop(start, stop, body, table.init(x))[0]

    return loop


LEVERS = [
    Lever("statistics in two passes", within=partial(replaced, basic, "moments", two_passes)),
    Lever("graphs with WHILE", ("gpu",), graphs("WHILE", "CONDITIONAL")),
    Lever("graphs with CONVOLUTION", ("gpu",), graphs("CONVOLUTION")),
    Lever("graphs with both", ("gpu",), graphs("CONVOLUTION", "WHILE", "CONDITIONAL")),
    Lever("graphs of one kernel", ("gpu",), {"xla_gpu_graph_min_graph_size": 1}),
    Lever("convolution fusions", ("gpu",), {"xla_gpu_experimental_enable_conv_fusion": True}),
    Lever("embedding before the loop", loop=embedded_before),
    Lever("four rows a pass", loop=unrolled(4)),
    Lever("four rows, graphs with CONVOLUTION", ("gpu",), graphs("CONVOLUTION"), loop=unrolled(4)),
    Lever("XLA's own convolutions", ("cpu",), within=partial(replaced, cpu, "PROGRAMS", ())),
    Lever(
        "XLA's own stride-1 convolutions of large images",
        ("cpu",),
        within=partial(replaced, cpu, "PROGRAMS", cpu.PROGRAMS[:2]),
    ),
]


class Compiled:
    """The loop of a case with one lever."""

    def __init__(self, ours: Ours, lever: Lever):
        def as_it_is(params: Any, table: Any, x: jax.Array, start: Any, stop: Any) -> jax.Array:
            return dj.advance(ours.denoise, params, table, table.init(x), None, start, stop)[0]

        loop = as_it_is if lever.loop is None else lever.loop(ours)
        given = (ours.params, ours.table, ours.x_T, jnp.int32(0), jnp.int32(3))
        began = time.perf_counter()
        with lever.within():
            jax.clear_caches()  # a loop that was traced with the former layers
            lowered = jax.jit(loop).lower(*given)
        self.loop = lowered.compile(compiler_options=dict(lever.options or {}))
        self.seconds = time.perf_counter() - began
        self.ours = ours

    def run(self, units: int) -> None:
        jax.block_until_ready(self._after(units))

    def outputs(self) -> dict[str, np.ndarray]:
        return {"three steps": np.asarray(self._after(3), np.float32)}

    def _after(self, units: int) -> jax.Array:
        ours = self.ours
        return self.loop(ours.params, ours.table, ours.x_T, jnp.int32(0), jnp.int32(units))


def pulled(
    ours: Ours, lever: Lever, base: Compiled, given: Namespace, ends: float
) -> dict[str, Any]:
    """A lever's row, or why it has none."""
    row: dict[str, Any] = {"lever": lever.name}
    if time.monotonic() > ends:
        return row | {"error": "the time was up"}
    try:
        changed = Compiled(ours, lever)
        apart = contenders.differences(changed.outputs(), base.outputs())
        allowed = contenders.tolerance(ours.case.precision, given.device)
        contenders.check(apart, lambda _what: allowed)
    except Exception as error:
        return row | {"error": contenders.one_line(error)}
    runs = {AS_IT_IS: base.run, lever.name: changed.run}
    units = rounds.window(runs, given.seconds)
    taken = rounds.take(runs, units, given.rounds)
    return row | {
        "gain": rounds.ratio(taken, AS_IT_IS, lever.name),
        "milliseconds": {
            name: 1000 * rounds.spread([took[name] / units for took in taken]).median
            for name in runs
        },
        "compiled": changed.seconds,
        "difference": apart["three steps"],
    }


def markdown(document: Mapping[str, Any]) -> str:
    columns = ("network", "batch", "precision", "change", "gain", "ms", "compiled, s", "difference")
    lines = [report.case_cells(row) + _cells(row) for row in document["levers"]]
    head = report.head("Single changes of the sampling loop", document)
    return "\n\n".join([head, report.table(columns, lines), NOTES]) + "\n"


def _cells(row: Mapping[str, Any]) -> list[str]:
    if "error" in row:
        return [row["lever"], f"not timed: {row['error']}".replace("|", "/"), "", "", ""]
    return [
        row["lever"],
        str(rounds.Spread(*row["gain"])),
        f"{row['milliseconds'][row['lever']]:.4g}",
        f"{row['compiled']:.1f}",
        f"{row['difference']:.0e}",
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = report.options("benchmarks.levers", __doc__, NETWORKS)
    parser.add_argument(
        "--minutes", type=float, help="no lever is begun later; default: 6 on a GPU"
    )
    given = report.parsed(parser, arguments, "levers")
    minutes = given.minutes or (6 if given.device == "gpu" else math.inf)
    ends = time.monotonic() + 60 * minutes
    document = report.begun(given) | {"levers": []}
    for case in report.cases(given, BATCHES[given.device], PRECISIONS[given.device]):
        ours = Ours(case, None)
        base = Compiled(ours, Lever(AS_IT_IS))
        for lever in LEVERS:
            if given.device in lever.devices:
                report.say(f"{case}: {lever.name}")
                document["levers"].append(case._asdict() | pulled(ours, lever, base, given, ends))
                report.write(given.out, document, markdown(document))
    print(markdown(document), end="")


if __name__ == "__main__":
    main()
