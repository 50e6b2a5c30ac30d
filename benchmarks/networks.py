"""The networks and pipelines that are sampled, and the presets that are trained."""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from benchmarks.report import Case
from ddpm_jax.training.data import Data
from ddpm_jax.training.run.presets import CIFAR10, TINY
from ddpm_jax.training.run.settings import Settings

SHARED = {
    "layers_per_block": 2,
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "norm_eps": 1e-6,
    "norm_num_groups": 32,
    "attention_head_dim": None,
}
"""What all google/ddpm-* checkpoints share; null heads are the paper's: one over all channels."""

NETWORKS: dict[str, dict[str, Any]] = {
    "cifar10": {  # google/ddpm-cifar10-32, 35,746,307 params
        **SHARED,
        "sample_size": 32,
        "block_out_channels": (128, 256, 256, 256),
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    },
    "cat256": {  # google/ddpm-cat-256, 113,673,219 params
        **SHARED,
        "sample_size": 256,
        "block_out_channels": (128, 128, 256, 256, 512, 512),
        "down_block_types": (*["DownBlock2D"] * 4, "AttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "AttnUpBlock2D", *["UpBlock2D"] * 4),
    },
    "tiny": {
        **SHARED,
        "sample_size": 8,
        "block_out_channels": (8,),
        "down_block_types": ("DownBlock2D",),
        "up_block_types": ("UpBlock2D",),
        "layers_per_block": 1,
        "norm_num_groups": 4,
    },
}


class Pipeline(NamedTuple):
    """A text-to-image pipeline: configs of its networks, and what is made with it. What they leave
    out has diffusers' default.
    """

    configs: dict[str, dict[str, Any]]
    size: int
    """Pixels of a side."""
    steps: int


VAE_BLOCKS = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
}
SD15 = {  # 859,520,964, 83,653,863 and 123,060,480 params
    "unet": {"sample_size": 64, "cross_attention_dim": 768},
    "vae": {**VAE_BLOCKS, "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2},
    "text_encoder": {
        "vocab_size": 49408,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "max_position_embeddings": 77,
        "hidden_act": "quick_gelu",
        "bos_token_id": 0,
        "eos_token_id": 2,
    },
}
SMALL = {
    "unet": {
        "sample_size": 8,
        "cross_attention_dim": 16,
        "down_block_types": ("CrossAttnDownBlock2D",),
        "up_block_types": ("CrossAttnUpBlock2D",),
        "block_out_channels": (16,),
        "layers_per_block": 1,
        "attention_head_dim": 2,
        "norm_num_groups": 4,
    },
    "vae": {**VAE_BLOCKS, "block_out_channels": (4,) * 4, "norm_num_groups": 4},
    "text_encoder": SD15["text_encoder"]
    | {
        "vocab_size": 256,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    },
}
PIPELINES = {
    "sd15": Pipeline(SD15, size=512, steps=50),
    "sd15-256px": Pipeline(SD15, size=256, steps=2),
    "tiny": Pipeline(SMALL, size=64, steps=4),
}

FILES = 1000
"""In a made folder of images."""

SMALLEST = replace(
    TINY.model,
    down_block_types=("DownBlock2D",),
    up_block_types=("UpBlock2D",),
    block_out_channels=(8,),
    layers_per_block=1,
    norm_num_groups=4,
)


class Preset(NamedTuple):
    """Settings, and the shape of their images: (8, 8, 1) the digits, (32, 32, 3) made files."""

    settings: Settings
    shape: tuple[int, int, int]


PRESETS = {
    "digits": Preset(TINY, (8, 8, 1)),
    "files": Preset(TINY, (32, 32, 3)),  # the network of the digits, on larger images from files
    "cifar10": Preset(CIFAR10, (32, 32, 3)),
    "tiny": Preset(replace(TINY, model=SMALLEST), (8, 8, 1)),
}


def settings_of(case: Case, folder: Path) -> Settings:
    """The preset's; no samples between updates, and noise as images has no loss to watch."""
    settings, shape = PRESETS[case.network]
    data = Data(name="digits")
    if shape == (32, 32, 3):
        data = Data(name=str(made_files(folder / "files")), flip=settings.data.flip)
    loop = replace(settings.loop, sample_every=0, divergence=0.0)
    loop = replace(loop, batch_size=case.batch, dtype=case.precision)
    return replace(settings, data=data, loop=loop)


def made_files(folder: Path) -> Path:
    """A folder of PNG files of noise, which are the largest and slowest to read."""
    if not folder.exists():
        folder.mkdir()
        rng = np.random.default_rng(0)
        for i in range(FILES):
            pixels = rng.integers(0, 256, (32, 32, 3), np.uint8)
            Image.fromarray(pixels).save(folder / f"{i:04d}.png")
    return folder
