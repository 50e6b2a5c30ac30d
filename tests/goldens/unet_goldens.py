"""The cases of unets.npz: configs of diffusers' UNet2DModel, and how to read what it gave."""

from pathlib import Path
from typing import Any

import numpy as np

FILE = Path(__file__).parent / "unets.npz"

SMALL: dict[str, Any] = {
    "block_out_channels": (4, 8),
    "layers_per_block": 1,
    "norm_num_groups": 2,
    "time_embedding_dim": 16,
}

CONFIGS: dict[str, dict[str, Any]] = {
    # as google/ddpm-cifar10-32 has it, with one attention head
    "ddpm": SMALL
    | {
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        "downsample_padding": 0,
        "flip_sin_to_cos": False,
        "freq_shift": 1,
        "norm_eps": 1e-6,
        "attention_head_dim": None,
    },
    # as the consistency models have it, with a class table
    "guided": SMALL
    | {
        "in_channels": 1,
        "out_channels": 2,
        "down_block_types": ("ResnetDownsampleBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "ResnetUpsampleBlock2D"),
        "resnet_time_scale_shift": "scale_shift",
        "attention_head_dim": 3,
        "upsample_type": "resnet",
        "downsample_type": "resnet",
        "num_class_embeds": 5,
        "act_fn": "gelu",
    },
    # what no public checkpoint has
    "rare": SMALL
    | {
        "in_channels": 2,
        "out_channels": 2,
        "center_input_sample": True,
        "down_block_types": ("AttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "AttnUpBlock2D"),
        "time_embedding_type": "fourier",
        "class_embed_type": "timestep",
        "mid_block_scale_factor": 1.5,
        "attn_norm_num_groups": 4,
        "attention_head_dim": 4,
        "act_fn": "mish",
        "norm_eps": 1e-3,
    },
    "learned": SMALL
    | {
        "down_block_types": ("DownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "UpBlock2D"),
        "time_embedding_type": "learned",
        "num_train_timesteps": 20,
        "class_embed_type": "identity",
        "mid_block_type": None,
        "act_fn": "relu",
    },
    # as google/ncsnpp-celebahq-256 presumably has it, in two of its seven sizes
    "ncsnpp": SMALL
    | {
        "block_out_channels": (32, 32),
        "down_block_types": ("SkipDownBlock2D", "AttnSkipDownBlock2D"),
        "up_block_types": ("AttnSkipUpBlock2D", "SkipUpBlock2D"),
        "time_embedding_type": "fourier",
        "norm_eps": 1e-6,
        "mid_block_scale_factor": 2**0.5,
        "norm_num_groups": None,
        "attention_head_dim": None,
    },
}


def read(name: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """A case's weights under torch's names, float32; and x, timestep, labels and output."""
    with np.load(FILE) as stored:
        own = {
            key.removeprefix(f"{name}/"): stored[key]
            for key in stored
            if key.startswith(f"{name}/")
        }
    weights = {
        key[2:]: value.astype(np.float32) for key, value in own.items() if key.startswith("w/")
    }
    return weights, {key: value for key, value in own.items() if not key.startswith("w/")}
