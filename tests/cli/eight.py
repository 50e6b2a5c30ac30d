"""Run by test_scale in a process with eight host devices; prints one JSON object.

XLA_FLAGS=--xla_force_host_platform_device_count=8 python -m tests.cli.eight MODEL FOLDER

The command draws into FOLDER/NAME with each of `RUNS`.
"""

import json
import re
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any
from unittest.mock import patch

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from pipelines.latent_models import parts

import ddpm_jax as dj
from ddpm_jax.cli import drawing, main
from ddpm_jax.pipelines.generate import with_conditions
from ddpm_jax.pipelines.inputs import make_inputs
from ddpm_jax.training import leaf_sharding, make_mesh

NUM = 24
RUNS = {  # devices, --batch-size
    "alone": (1, 3),
    "two": (2, 6),
    "four": (4, 12),
    "eight": (8, 24),
    "eight, more batches": (8, 16),
    "alone, one batch": (1, 24),
    "alone, by single images": (1, 1),
}
SMALLEST = 2**10
"""Numbers in a leaf that is cut: the digits' network is small."""


def draw(
    model: str, out: Path, count: int, batch: int, argv: str = f"--num {NUM} --eta 1"
) -> list[tuple[int, int]]:
    """Runs the command on so many devices; how many devices its batches had, and rows on each."""
    rows: set[tuple[int, int]] = set()
    pixels, some = drawing._pixels, jax.local_devices()[:count]

    def seen(images: jax.Array) -> Any:
        shards = images.addressable_shards
        rows.add((len(images.sharding.device_set), shards[0].data.shape[0]))
        return pixels(images)

    always = f"sample --no-cache --model {model} --steps 4 --batch-size {batch} --out"
    with (
        patch.object(jax, "local_devices", lambda: some),
        patch.object(drawing, "_pixels", seen),
    ):
        assert main([*always.split(), str(out), *argv.split()]) == 0
    return sorted(rows)


def cut_params() -> dict[str, Any]:
    """Sampling with params that no device has all of."""
    mesh = make_mesh(fsdp=8)
    split = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
    call: dict[str, Any] = {"num_inference_steps": 4, "output_type": "np", "progress": False}
    call |= {"batch_size": 8, "eta": 1.0}
    alone = dj.DDIMPipeline.from_pretrained("digits")
    pipe = dj.DDIMPipeline.from_pretrained(
        "digits", sharding=lambda path, shape: leaf_sharding(shape, mesh, min_size=SMALLEST)
    )
    leaves = jax.tree.leaves(pipe.params)
    whole = sum(leaf.nbytes for leaf in leaves)
    one = jax.random.key(0)
    images = pipe(one, sharding=split, **call).images
    expected = alone(one, **call).images
    table = pipe.scheduler.table(4)
    inputs = make_inputs(pipe.unet, table, one, batch_size=8, sharding=split)
    placed = inputs.place(pipe.params)
    denoise, params = with_conditions(pipe.unet, placed, inputs.conditions)
    start, padded = table.init(inputs.x_T), inputs.place(dj.pad(table))
    program = jax.jit(lambda p, t, r: dj.advance(denoise, p, t, r, None, 0, 4))
    text = program.lower(params, padded, start).compile().as_text()
    return {
        "difference": float(np.abs(images - expected).max()),
        "untouched": all(a is b for a, b in zip(leaves, jax.tree.leaves(placed), strict=True)),
        "share": [held(leaves, device) / whole for device in jax.devices()],
        "gathered": gathered(text or ""),
    }


def held(leaves: list[jax.Array], device: jax.Device) -> int:
    """Bytes of params on a device."""
    shards = (shard for leaf in leaves for shard in leaf.addressable_shards)
    return sum(shard.data.nbytes for shard in shards if shard.device == device)


def gathered(text: str) -> dict[str, int]:
    """Gathers of a compiled program, in its loop and before it."""
    found: Counter[str] = Counter()
    inside = "before"
    for line in text.splitlines():
        if not line.startswith(" "):
            inside = "before" if line.startswith("ENTRY") else "loop"
        found[inside] += bool(re.search(r" all-gather(-start)?\(", line))
    return dict(found)


def prompts(folder: Path) -> list[tuple[int, int]]:
    """Six images of texts, by the small random pipeline, on one device and on all."""
    model = folder / "texts"
    dj.StableDiffusionPipeline(**parts()).save_pretrained(model)
    argv = "--scheduler ddim --num 3 --prompt cat dog"
    draw(str(model), folder / "prompts, alone", 1, 6, argv)
    return draw(str(model), folder / "prompts, eight", 8, 6, argv)


def run(model: str, folder: Path) -> dict[str, Any]:
    rows = {name: draw(model, folder / name, *given) for name, given in RUNS.items()}
    shutil.copytree(folder / "alone", folder / "restarted")
    for number in (1, 8, 9, 17):
        (folder / "restarted" / f"{number:05d}.png").unlink()
    draw(model, folder / "restarted", *RUNS["eight"])
    return {"rows": rows, "cut": cut_params(), "prompts": prompts(folder)}


if __name__ == "__main__":
    print(json.dumps(run(sys.argv[1], Path(sys.argv[2]))))
