"""A short training run of a tiny network, for the scripts in this folder: the same on any mesh."""

import re
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

import ddpm_jax as dj
from ddpm_jax import training

STEPS, BATCH, SIDE = 20, 48, 4
MIN_SIZE = 64  # cut small leaves too: the network has no others

MODEL = dj.UNet2DModel(
    sample_size=SIDE,
    in_channels=1,
    out_channels=1,
    down_block_types=("AttnDownBlock2D",),
    up_block_types=("UpBlock2D",),
    mid_block_type=None,
    block_out_channels=(8,),
    layers_per_block=1,
    norm_num_groups=4,
    num_class_embeds=4,
    dropout=0.2,
)
LOSS = training.make_loss(
    MODEL, dj.DDPMScheduler(), training.Objective(weighting="min_snr", label_dropout=0.25)
)
ADAM = training.Optimizer(learning_rate=1e-3, warmup_steps=5).make(STEPS)


def batch(k: int, rows: slice = slice(None)) -> dict[str, np.ndarray]:
    """Batch k of the run, or some rows of it."""
    rng = np.random.default_rng(k)
    image = rng.uniform(-1, 1, (BATCH, SIDE, SIDE, 1)).astype(np.float32)
    return {"image": image[rows], "label": rng.integers(0, 3, BATCH, dtype=np.int32)[rows]}


def start(mesh: Mesh, accumulate: int = 1) -> tuple[training.TrainState, Any, Any]:
    """A state, its shardings, and the update of the run."""
    params, key = MODEL.init_params(jax.random.key(0)), jax.random.key(7)
    state, shardings = training.init_sharded(params, ADAM, key, mesh, min_size=MIN_SIZE)
    loss = training.gather_params(LOSS, shardings.params)
    update = training.make_update(loss, ADAM, training.Ema(decay=0.9), accumulate=accumulate)
    return state, shardings, update


def flat(tree: Any) -> np.ndarray:
    """All numbers of a tree in one vector, on the host."""
    return np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(training.fetch(tree))])


def share(tree: Any) -> float:
    """Of a tree's bytes, the share that the first device here holds."""
    leaves = jax.tree.leaves(tree)
    held = sum(leaf.addressable_shards[0].data.nbytes for leaf in leaves)
    return held / sum(leaf.nbytes for leaf in leaves)


def misplaced(state: Any, shardings: Any) -> list[str]:
    """Leaves that do not stand where they should."""
    wanted = jax.tree.leaves(shardings)
    found, _ = jax.tree_util.tree_flatten_with_path(state)
    return [
        f"{jax.tree_util.keystr(path)}: {leaf.sharding}"
        for (path, leaf), sharding in zip(found, wanted, strict=True)
        if not leaf.sharding.is_equivalent_to(sharding, leaf.ndim)
    ]


MOVE = re.compile(r"= (.*) (?:all-gather|all-to-all|collective-permute)(?:-start)?\(")


def moved(program: str) -> list[list[int]]:
    """Sizes, sorted and without ones, of what a compiled program hands around between devices."""
    shapes = [
        shape
        for line in program.splitlines()
        if (found := MOVE.search(line)) is not None
        for shape in re.findall(r"\w+\[([\d,]*)\]", found[1])
    ]
    return [
        sorted(int(size) for size in shape.split(",") if size not in ("", "1")) for shape in shapes
    ]


def apart(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The distance between two vectors, relative to the length of the second."""
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


def param_sizes() -> list[list[int]]:
    """Sizes of the params, sorted and without ones, as `moved` has them."""
    return [
        sorted(size for size in leaf.shape if size > 1) for leaf in jax.tree.leaves(MODEL.shapes())
    ]
