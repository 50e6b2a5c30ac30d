"""Images of 512 pixels against diffusers, by a network of seven sizes, on random weights."""

from pathlib import Path
from typing import Any

import diffusers
import jax
import numpy as np
import torch

import ddpm_jax as dj
from tests.parity import torch_unet

SIZE, STEPS = 512, 2
CONFIG: dict[str, Any] = {
    "sample_size": SIZE,
    "block_out_channels": (32,) * 7,
    "layers_per_block": 1,
    "down_block_types": (*("DownBlock2D",) * 5, "AttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "AttnUpBlock2D", *("UpBlock2D",) * 5),
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "norm_eps": 1e-6,
    "attention_head_dim": None,
}
"""As google/ddpm-church-256 has it, with a seventh size; attention at 16 x 16 and at 8 x 8."""

PARITY = 1e-5
"""Of pixels in [0, 1], both float32."""


def noise() -> np.ndarray:
    """What diffusers' pipeline draws from the seed 0."""
    return dj.torch_noise(0, (1, SIZE, SIZE, 3))


def test_a_sample(tmp_path: Path):
    scheduler = diffusers.DDIMScheduler(clip_sample=False)
    pipe = diffusers.DDIMPipeline(unet=torch_unet.make(CONFIG), scheduler=scheduler)
    pipe.set_progress_bar_config(disable=True)
    pipe.save_pretrained(tmp_path)
    seed = torch.Generator().manual_seed(0)
    wanted = pipe(generator=seed, num_inference_steps=STEPS, output_type="np").images
    ours: Any = dj.DDIMPipeline.from_pretrained(tmp_path)
    images = ours(
        jax.random.key(0),
        x_T=noise(),
        num_inference_steps=STEPS,
        output_type="np",
        progress=False,
    ).images
    assert images.shape == wanted.shape == (1, SIZE, SIZE, 3)
    assert np.mean((wanted > 0) & (wanted < 1)) > 0.1  # there is something to compare
    print(f"{np.abs(images - wanted).max():.1e} apart")
    np.testing.assert_allclose(images, wanted, atol=PARITY)
