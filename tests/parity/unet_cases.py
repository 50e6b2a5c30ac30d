"""Configs of small UNets in which every pair of options occurs, and what they are called with."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tests.parity.pairs import Case

CALL = ("down", "up", "classes", "batch", "scalar_timestep", "sides")
"""What is no config field: the first three stand for several, the others are of the call."""

FACTORS: dict[str, list[Any]] = {
    "in_channels": [1, 3],
    "out_channels": [3, 6],
    "center_input_sample": [False, True],
    "time_embedding_type": ["positional", "fourier", "learned"],
    "time_embedding_dim": [None, 20],
    "freq_shift": [0, 1],
    "flip_sin_to_cos": [True, False],
    "block_out_channels": [(8, 16), (12, 16)],  # more sizes: test_unet_parity.py's checkpoints
    "down": ["DownBlock2D", "AttnDownBlock2D", "ResnetDownsampleBlock2D", "UNetResAttnDownBlock2D"],
    "up": ["UpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D", "UNetResUpBlock2D"],
    "mid_block_type": ["UNetMidBlock2D", None],
    "layers_per_block": [1, 2],
    "mid_block_scale_factor": [1, 1.7],
    "downsample_padding": [1, 0],
    "downsample_type": ["conv", "resnet"],
    "upsample_type": ["conv", "resnet"],
    "dropout": [0.0, 0.3],
    "act_fn": ["silu", "swish", "mish", "gelu", "relu"],
    "attention_head_dim": [8, 3, None],
    "norm_num_groups": [4, 2],
    "attn_norm_num_groups": [None, 8],
    "norm_eps": [1e-5, 1e-2],
    "resnet_time_scale_shift": ["default", "scale_shift"],
    "add_attention": [True, False],
    "classes": [None, "table", "timestep", "identity", "timestep and table"],
    "batch": [1, 2],
    "scalar_timestep": [False, True],
    "sides": [(8, 8), (16, 8)],
}


def config_of(case: Case) -> dict[str, Any]:
    """The config of a case: blocks of the type that it names, and of a plainer one."""
    return with_blocks(case, *([case[key], _other(case[key])] for key in ("down", "up")))


def with_blocks(case: Case, down: Sequence[str], up: Sequence[str]) -> dict[str, Any]:
    """The config of a case with these block types, from the first size to the last."""
    config = {name: value for name, value in case.items() if name not in CALL}
    config |= {"down_block_types": tuple(down), "up_block_types": tuple(up[::-1])}
    if case["time_embedding_type"] == "learned":
        config["num_train_timesteps"] = 1000
    if case["classes"] in ("table", "timestep and table"):
        config["num_class_embeds"] = 7
    if case["classes"] not in (None, "table"):
        config["class_embed_type"] = case["classes"].split()[0]
    return config


def _other(name: str) -> str:
    plain = "DownBlock2D" if "Down" in name else "UpBlock2D"
    return f"Attn{plain}" if name == plain else plain


def inputs_of(case: Case, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """x (channels last), timestep, class labels."""
    rng, batch = np.random.default_rng(seed), case["batch"]
    x = rng.standard_normal((batch, *case["sides"], case["in_channels"])).astype(np.float32)
    shape = () if case["scalar_timestep"] else (batch,)
    timestep, labels = _times(rng, case, shape), None
    if case["classes"] == "table":
        labels = rng.integers(7, size=batch)
    elif case["classes"] == "identity":
        width = case["time_embedding_dim"] or 4 * case["block_out_channels"][0]
        labels = rng.standard_normal((batch, width)).astype(np.float32)
    elif case["classes"] is not None:
        labels = _times(rng, case, (batch,))
    return x, timestep, labels


def _times(rng: np.random.Generator, case: Case, shape: tuple[int, ...]) -> np.ndarray:
    if case["time_embedding_type"] == "fourier":  # a sigma, which divides the output
        return np.exp(rng.uniform(-2, 4, shape)).astype(np.float32)
    if case["time_embedding_type"] == "learned":
        return np.asarray(rng.integers(1000, size=shape))
    return rng.uniform(0, 1000, shape).astype(np.float32)
