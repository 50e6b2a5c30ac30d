"""Run by test_sharding in a process with eight host devices; prints one JSON object.

XLA_FLAGS=--xla_force_host_platform_device_count=8 python -m tests.training.eight FOLDER

The state that the run on one device ends with goes to FOLDER/alone.npz.
"""

import json
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh

from ddpm_jax import training
from tests.training import small

COMPILED = "/jax/core/compile/backend_compile_duration"

RUNS = {  # data, fsdp, parts of a batch, steps of a call
    "alone": (1, 1, 1, 1),
    "data-parallel": (8, 1, 1, 1),
    "fully sharded, five steps a call": (1, 8, 1, 5),
    "alone, in parts": (1, 1, 2, 1),
    "mixed, in parts": (4, 2, 2, 1),
}


class Programs:
    """Counts what XLA compiles."""

    def __init__(self) -> None:
        self.count = 0
        jax.monitoring.register_event_duration_secs_listener(self)

    def __call__(self, event: str, _seconds: float, **_details: object) -> None:
        self.count += event == COMPILED


def mesh_of(data: int, fsdp: int) -> Mesh:
    """`make_mesh` takes all devices; here is one of the first alone, too."""
    if data * fsdp == 8:
        return training.make_mesh(data, fsdp)
    devices = np.array(jax.devices()[:1]).reshape(1, 1)
    return Mesh(devices, ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)


def stack(batches: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return jax.tree.map(lambda *leaves: np.stack(leaves), *batches)


def run(
    programs: Programs, data: int, fsdp: int, parts: int, per_call: int
) -> tuple[dict[str, Any], training.TrainState]:
    mesh = mesh_of(data, fsdp)
    state, shardings, update = small.start(mesh, parts)
    many = per_call > 1
    make = training.make_train_steps if many else training.make_train_step
    step = make(update, shardings=shardings)
    calls = np.arange(small.STEPS).reshape(-1, per_call).tolist()
    batches = [
        training.place_batch(
            stack([small.batch(k) for k in call]) if many else small.batch(call[0]),
            mesh,
            stacked=many,
        )
        for call in calls
    ]
    first, share, losses = state, small.share(state), []
    programs.count = 0
    program = step.lower(state, batches[0]).compile().as_text()  # the calls below find it
    for placed in batches:
        state, metrics = step(state, placed)
        losses += np.atleast_1d(np.asarray(metrics["loss"])).tolist()
    return {
        "losses": losses,
        "compiled": programs.count,
        "donated": all(leaf.is_deleted() for leaf in jax.tree.leaves(first)),
        "misplaced": small.misplaced(state, shardings),
        "share": [share, small.share(state)],
        "rows": sorted({shard.data.shape[many] for shard in placed["image"].addressable_shards}),
        "moved": small.moved(program),
    }, state


def main(folder: Path) -> None:
    programs = Programs()
    with pytest.raises(ValueError, match="this process's 8 devices, got 12 images"):
        training.place_batch({"image": np.zeros((12, 8, 8, 1))}, training.make_mesh())
    found: dict[str, Any] = {}
    states: dict[str, training.TrainState] = {}
    for name, numbers in RUNS.items():
        found[name], states[name] = run(programs, *numbers)
    alone = states["alone"]
    np.savez(folder / "alone.npz", params=small.flat(alone.params), ema=small.flat(alone.ema))
    for name, state in states.items():
        reference = states["alone, in parts" if "parts" in name else "alone"]
        found[name]["apart"] = [
            small.apart(small.flat(getattr(state, part)), small.flat(getattr(reference, part)))
            for part in ("params", "ema")
        ]
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
