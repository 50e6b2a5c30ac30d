"""New params for a whole model from one draw, with the distributions of its layers' initializers.

A program with a random draw for each of hundreds of params takes XLA minutes to compile. Here one
flat draw is cut into the leaves, and each is scaled as torch does it (He et al. 2015,
arXiv:1502.01852, with torch's slope of sqrt(5)):

    (1)  kernel, bias   U(-1 / sqrt(fan_in), 1 / sqrt(fan_in)), fan_in being the kernel's
    (2)  scale 1 and bias 0 (GroupNorm)
    (3)  embedding      N(0, 1);   fourier weight   N(0, 16^2)
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, UInt32

from ddpm_jax.models.layers.embeddings import FOURIER_SCALE


def draw(key: Key[Array, ""] | UInt32[Array, "2"], shapes: Mapping[str, Any]) -> dict[str, Any]:
    """Params for a tree of shapes and dtypes, as `UNet2DModel.shapes` returns it."""
    uniform_key, normal_key = jax.random.split(key)
    total = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
    unit = np.asarray(jax.random.uniform(uniform_key, (total,), jnp.float32, -1, 1))
    return _module(unit, normal_key, shapes)[0]


def _module(
    unit: Float[np.ndarray, " n"], key: Array, shapes: Mapping[str, Any]
) -> tuple[dict[str, Any], Float[np.ndarray, " m"]]:
    """A module's params, and the unused rest of the draw."""
    params: dict[str, Any] = {}
    for name, child in sorted(shapes.items()):
        if isinstance(child, Mapping):
            params[name], unit = _module(unit, key, child)
            continue
        own = jax.random.fold_in(key, unit.size)  # the rest has another size for each leaf
        size = math.prod(child.shape)
        values, unit = unit[:size].reshape(child.shape), unit[size:]
        params[name] = jnp.asarray(_scaled(name, values, own, shapes), child.dtype)
    return params, unit


def _scaled(
    name: str, unit: Float[np.ndarray, "..."], key: Array, module: Mapping[str, Any]
) -> np.ndarray | Array:
    """One leaf, equations (1) to (3)."""
    if name == "scale":
        return np.ones_like(unit)
    if name in ("embedding", "weight"):
        drawn = jax.random.normal(key, unit.shape)
        return drawn if name == "embedding" else FOURIER_SCALE * drawn
    if "kernel" not in module:
        return np.zeros_like(unit)
    return unit / math.sqrt(math.prod(module["kernel"].shape[:-1]))
