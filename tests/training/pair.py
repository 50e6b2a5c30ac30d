r"""Run twice by test_sharding, as processes 0 and 1 of one run; each prints one JSON object.

JAX_COORDINATOR_ADDRESS=127.0.0.1:PORT JAX_NUM_PROCESSES=2 JAX_PROCESS_ID=INDEX \\
    python -m tests.training.pair FSDP FOLDER
"""

import json
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ddpm_jax import training
from tests.training import small


def run(fsdp: int) -> tuple[dict[str, Any], training.TrainState]:
    """The small run with params cut over the devices of both, each feeding its own rows."""
    index = jax.process_index()
    mesh = training.make_mesh(fsdp=fsdp)
    state, shardings, update = small.start(mesh)
    step = training.make_train_step(update, shardings=shardings)
    half, losses = small.BATCH // 2, []
    own = slice(index * half, (index + 1) * half)
    for k in range(small.STEPS):
        placed = training.place_batch(small.batch(k, own), mesh)
        state, metrics = step(state, placed)
        losses.append(float(metrics["loss"]))
    return {
        "devices": [jax.local_device_count(), jax.device_count()],
        "index": index,
        "batch": placed["image"].shape,
        "losses": losses,
        "misplaced": small.misplaced(state, shardings),
        "share": small.share(state),
        "elsewhere": sum(not leaf.is_fully_addressable for leaf in jax.tree.leaves(state.params)),
    }, state


def main(fsdp: int, folder: Path) -> None:
    connected = training.start_processes(timeout=60)
    found, state = run(fsdp)
    file = folder / f"{found['index']}.npz"
    np.savez(file, params=small.flat(state.params), ema=small.flat(state.ema))
    print(json.dumps({"connected": connected, **found}))


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
