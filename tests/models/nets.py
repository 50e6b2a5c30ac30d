"""Small UNets for tests, and parameters that all affect the output."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ddpm_jax.models import Model

TINY: dict[str, Any] = {
    "in_channels": 2,
    "out_channels": 3,
    "block_out_channels": (8, 16),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
    "norm_num_groups": 4,
}
"""One attention at each end of the smaller size."""

CIFAR10: dict[str, Any] = {
    "sample_size": 32,
    "block_out_channels": (128, 256, 256, 256),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "norm_eps": 1e-6,
}
"""google/ddpm-cifar10-32."""

CAT: dict[str, Any] = CIFAR10 | {
    "sample_size": 256,
    "block_out_channels": (128, 128, 256, 256, 512, 512),
    "down_block_types": (*("DownBlock2D",) * 4, "AttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "AttnUpBlock2D", *("UpBlock2D",) * 4),
    "attention_head_dim": None,
}
"""google/ddpm-cat-256 and the other models of that size."""


def params_of(model: Model, seed: int = 0) -> dict[str, Any]:
    """Random params without the zeros and ones of initial norms, made on the host."""
    rng = np.random.default_rng(seed)

    def draw(path: Any, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        fan_in = int(np.prod(leaf.shape[:-1]))
        around = 1.0 if path[-1].key == "scale" else 0.0
        values = around + rng.standard_normal(leaf.shape) * min(0.3, 1 / np.sqrt(fan_in))
        return jnp.asarray(values.astype(leaf.dtype))

    return jax.tree_util.tree_map_with_path(draw, model.shapes())


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def images(batch: int, side: int, channels: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(draw(batch, side, side, channels, seed=seed))
