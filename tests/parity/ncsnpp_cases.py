"""NCSN++ networks of diffusers' `UNet2DModel`: the presumed public one, and pairs of options."""

from typing import Any

from tests.parity.pairs import Case
from tests.parity.unet_cases import with_blocks

NCSNPP: dict[str, Any] = {
    "sample_size": 32,
    "block_out_channels": (32, 32, 64, 64),
    "down_block_types": (*("SkipDownBlock2D",) * 2, "AttnSkipDownBlock2D", "SkipDownBlock2D"),
    "up_block_types": ("SkipUpBlock2D", "AttnSkipUpBlock2D", *("SkipUpBlock2D",) * 2),
    "time_embedding_type": "fourier",
    "norm_eps": 1e-6,
    "mid_block_scale_factor": 2**0.5,
    "norm_num_groups": None,
    "attention_head_dim": None,
}
"""google/ncsnpp-celebahq-256 as its topology is presumed, with four of its seven sizes."""

DOWN, SKIP, ATTENDING = "DownBlock2D", "SkipDownBlock2D", "AttnSkipDownBlock2D"
FACTORS: dict[str, list[Any]] = {
    "center_input_sample": [False, True],
    "time_embedding_type": ["positional", "fourier", "learned"],
    "time_embedding_dim": [None, 20],
    "block_out_channels": [(32, 64), (64, 32)],  # the public network has more sizes
    "down": [(SKIP, ATTENDING), (ATTENDING, SKIP), (SKIP, DOWN), (DOWN, ATTENDING)],
    "up": [(SKIP, ATTENDING), (ATTENDING, SKIP), (SKIP, DOWN), (ATTENDING, DOWN)],
    "mid_block_type": ["UNetMidBlock2D", None],
    "layers_per_block": [1, 2],
    "mid_block_scale_factor": [1, 2**0.5],
    "downsample_padding": [1, 0],
    "downsample_type": ["conv", "resnet"],
    "dropout": [0.0, 0.3],
    "act_fn": ["silu", "gelu", "relu"],
    "attention_head_dim": [8, 3, None],
    "norm_num_groups": [16, None],
    "attn_norm_num_groups": [None, 8],
    "norm_eps": [1e-6, 1e-2],
    "resnet_time_scale_shift": ["default", "scale_shift"],
    "add_attention": [True, False],
    "classes": [None, "table", "timestep", "identity"],
    "batch": [1, 2],
    "scalar_timestep": [False, True],
    "sides": [(8, 8), (16, 8)],
}


def config_of(case: Case) -> dict[str, Any]:
    """The config of a case."""
    down, up = case["down"], case["up"]
    config = with_blocks(case, down, [name.replace("Down", "Up") for name in up])
    if case["norm_num_groups"] is None and DOWN in (*down, *up):
        config["norm_num_groups"] = 4
    return config
