"""The memory that a sampling loop needs, beside one evaluation: `python -m benchmarks.memory`.

What XLA reserves for a program: its arguments (params, table, samples), its result, and what it
keeps meanwhile. Nothing is run. `--out` as in the other scripts.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

import ddpm_jax as dj
from benchmarks import report
from benchmarks.networks import NETWORKS
from benchmarks.sampling import Ours

BATCHES = {"cpu": {"cifar10": (1, 16)}, "gpu": {"cifar10": (1, 256), "cat256": (16,)}}
PRECISIONS = {"cpu": ("float32",), "gpu": ("bfloat16",)}
PARTS = ("argument", "output", "temp")

NOTES = """\
MiB that XLA reserves: arguments (of them params), the result, and what a program keeps meanwhile.
Over one evaluation: the loop's sum over that of the network alone, at the same batch. The loop is
`ddpm_jax.advance` over a table of 1,024 rows."""


def megabytes(compiled: Any) -> dict[str, float]:
    """By part, in MiB."""
    found = compiled.memory_analysis()
    return {part: getattr(found, f"{part}_size_in_bytes") / 2**20 for part in PARTS}


def measured(case: report.Case) -> dict[str, Any]:
    ours = Ours(case, None)

    def loop(params: Any, table: dj.Table, x: jax.Array, stop: jax.Array) -> jax.Array:
        return dj.advance(ours.denoise, params, table, table.init(x), None, jnp.int32(0), stop)[0]

    one = jax.jit(ours.denoise).lower(ours.params, ours.x_T, ours.timestep)
    all_rows = jax.jit(loop).lower(ours.params, ours.table, ours.x_T, jnp.int32(1))
    found = {
        "evaluation": megabytes(one.compile()),
        "loop": megabytes(all_rows.compile()),
        "params": sum(leaf.nbytes for leaf in jax.tree.leaves(ours.params)) / 2**20,
    }
    over = sum(found["loop"].values()) / sum(found["evaluation"].values())
    return case._asdict() | found | {"over": over}


def markdown(document: Mapping[str, Any]) -> str:
    columns = ("network", "batch", "precision", "program", *PARTS, "params", "over one evaluation")
    lines = [
        [
            *report.case_cells(row),
            name,
            *(f"{row[name][part]:.1f}" for part in PARTS),
            f"{row['params']:.1f}",
            f"{row['over']:.2f}" if name == "loop" else "",
        ]
        for row in document["memory"]
        for name in ("evaluation", "loop")
    ]
    head = report.head("Memory of the sampling loop", document)
    return "\n\n".join([head, report.table(columns, lines), NOTES]) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = report.options("benchmarks.memory", __doc__, NETWORKS)
    given = report.parsed(parser, arguments, "memory")
    document = report.begun(given) | {"memory": []}
    del document["seconds"]  # nothing is timed
    for case in report.cases(given, BATCHES[given.device], PRECISIONS[given.device]):
        document["memory"].append(measured(case))
        report.write(given.out, document, markdown(document))
    print(markdown(document), end="")


if __name__ == "__main__":
    main()
