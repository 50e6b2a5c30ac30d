"""Random weights of Inception-v3, the same on every machine, under torch's names."""

import math
from typing import Any

import jax
import numpy as np

import weights_convert
from ddpm_jax.evaluation.inception import InceptionV3

SEED = 7


def random_params() -> dict[str, Any]:
    """Params whose features are of the size of 1, and differ between images."""
    rng = np.random.default_rng(SEED)
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: _leaf(rng, path[-1].key, leaf.shape), InceptionV3().shapes()
    )


def random_state() -> dict[str, np.ndarray]:
    """The same as a torch state dict."""
    return weights_convert.to_torch(random_params())


def _leaf(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    if name == "kernel":
        fan_in = math.prod(shape[:-1])
        return rng.standard_normal(shape, np.float32) * np.float32(math.sqrt(2 / fan_in))
    if name in ("scale", "running_var"):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    return rng.normal(0, 0.1, shape).astype(np.float32)
