"""The memory that an update needs, estimated before anything is compiled."""

import math
import os
from typing import Any

import jax
import jax.numpy as jnp

from ddpm_jax.training.objective import Loss
from ddpm_jax.training.run.settings import Loop

STATES = 5
"""Copies of the params in an update: they, their average, Adam's two moments and the gradient."""
SMALL = 2**14
"""Pixels of a batch that fit anywhere; for fewer nothing is traced, which would take seconds."""


def too_large(
    loss: Loss,
    params: Any,
    shape: tuple[int, int, int],
    loop: Loop,
    *,
    devices: int,
    labels: bool = False,
) -> str | None:
    """A sentence about an update that does not fit into a device's memory, or None if it does.

    Args:
        loss: that is differentiated.
        params: as `Model.shapes` gives them.
        shape: (H, W, C) of an image.
        loop: with the batch size.
        devices: that share a batch.
        labels: whether the batch has labels.
    """
    memory, share = device_memory(), loop.batch_size // devices
    images = share // loop.accumulate
    if memory is None or images * shape[0] * shape[1] < SMALL:
        return None
    state = STATES * _bytes(params)
    activations = activation_bytes(loss, params, shape, images, labels=labels)
    if state + activations <= memory:
        return None
    fit = math.floor(images * (memory - state) / activations)  # images at once
    return (
        f"an update needs about {(state + activations) / 1e9:,.1f} GB on each device, which has "
        f"{memory / 1e9:,.1f} GB: {_advice(share, fit, devices)}"
    )


def _advice(share: int, fit: int, devices: int) -> str:
    if fit < 1:
        return "not even one image fits; take a smaller data.resolution or network"
    sizes = range(1, share + 1)
    parts = next(parts for parts in sizes if share % parts == 0 and share // parts <= fit)
    return (
        f"loop.accumulate {parts} fits with the same batch size, or a loop.batch_size of "
        f"{2 ** int(math.log2(fit)) * devices}"
    )


def activation_bytes(
    loss: Loss, params: Any, shape: tuple[int, int, int], images: int, *, labels: bool = False
) -> int:
    """Bytes of what the backward pass reads, the params left out.

    An upper bound: compilers store less where they fuse operations.
    """
    batch = {"image": jax.ShapeDtypeStruct((images, *shape), jnp.float32)}
    if labels:
        batch["label"] = jax.ShapeDtypeStruct((images,), jnp.int32)

    def backward(params: Any, batch: Any) -> Any:
        return jax.vjp(lambda p: loss(p, batch, jax.random.key(0)), params, has_aux=True)[1]

    # The backward pass is a pytree, whose leaves are what it reads.
    return _bytes(jax.eval_shape(backward, params, batch)) - _bytes(params)


def device_memory() -> int | None:
    """Bytes of the smallest device of this process; None if unknown.

    Of a CPU, the machine's memory over the number of its JAX devices.
    """
    devices = jax.local_devices()
    limits = [(device.memory_stats() or {}).get("bytes_limit") for device in devices]
    if known := [limit for limit in limits if limit]:
        return min(known)
    if devices[0].platform == "cpu" and hasattr(os, "sysconf"):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // len(devices)
    return None


def _bytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
