"""Checkpoints of improved-diffusion and guided-diffusion (`.pt`).

    x_t = alpha x_0 + sigma eps,     output = eps, or (eps, v) with a learned variance

With T training timesteps, the linear schedule goes from 0.1 / T to 20 / T. A network that was told
1000 t / T in place of t has a table of T sinusoids, a learned time embedding in diffusers' terms.

Reference: Nichol & Dhariwal 2021, arXiv:2102.09672; Dhariwal & Nichol 2021, arXiv:2105.05233.
"""

import numpy as np

from weights_convert.layouts.base import Network, Settings, Tensors, UNetLayout, needed, raise_if
from weights_convert.layouts.openai import MARKS, channels, heads_needed, unet
from weights_convert.ldm_configs import Config
from weights_convert.tensors import Array, Stored

_MAX_PERIOD = 10_000
_RESCALED_TO = 1000


def _read(tensors: Tensors, settings: Settings) -> Network:
    taken, made = channels(tensors)
    learned = taken is not None and made == 2 * taken
    wanted = {
        "sample_size": "width and height of its images",
        "beta_schedule": "its noise_schedule: linear, or squaredcos_cap_v2 for cosine",
        "num_train_timesteps": "its diffusion_steps",
    }
    if not learned:
        wanted["variance_type"] = "fixed_large unless it was sampled with sigma_small"
    if settings.num_heads != 1:
        wanted["head_order"] = "new with use_new_attention_order, else legacy"
    steps = settings.num_train_timesteps
    if steps not in (None, _RESCALED_TO):
        wanted["rescale_timesteps"] = "its option of that name"
    faults = [*heads_needed(settings), *needed(settings, wanted), *_super_resolution(tensors)]
    if learned and settings.variance_type is not None:
        faults.append(
            f"it learns its variance: variance_type {settings.variance_type} is not for it"
        )
    raise_if(faults)
    assert steps is not None
    found, config = unet(tensors, settings, settings.head_order or "new")
    if settings.rescale_timesteps and steps != _RESCALED_TO:
        width = config["block_out_channels"][0]
        found["time_proj.weight"] = _sinusoids(steps, width)
        config |= {"time_embedding_type": "learned", "num_train_timesteps": steps}
    return Network(found, config, _scheduler(settings, steps, learned))


def _scheduler(settings: Settings, steps: int, learned: bool) -> Config:
    return {
        "_class_name": "DDPMScheduler",
        "num_train_timesteps": steps,
        "beta_schedule": settings.beta_schedule,
        "beta_start": 0.1 / steps,
        "beta_end": 20 / steps,
        "variance_type": "learned_range" if learned else settings.variance_type,
        "prediction_type": "epsilon",
        "clip_sample": True,
    }


def _super_resolution(tensors: Tensors) -> list[str]:
    """Super-resolution networks take a small picture beside x: their input has twice its channels.

    With a learned variance, input and output have the same channels, as of a network on pictures of
    six. No published one is that.
    """
    if channels(tensors) in ((6, 3), (6, 6)):
        return ["it takes 6 channels: a small picture beside x, and UNet2DModel takes x alone"]
    return []


def _sinusoids(steps: int, width: int) -> Stored:
    """[cos, sin] of the timesteps 0, ..., steps - 1, as parts of 1000."""

    def read() -> Array:
        half = width // 2
        frequencies = np.exp(-np.log(_MAX_PERIOD) * np.arange(half) / half).astype(np.float32)
        told = (np.arange(steps) * (_RESCALED_TO / steps)).astype(np.float32)
        angles = (told[:, None] * frequencies).astype(np.float64)
        parts = [np.cos(angles), np.sin(angles), np.zeros((steps, width % 2))]
        return np.concatenate(parts, axis=1).astype(np.float32)

    return Stored((steps, width), np.dtype(np.float32), read)


GUIDED = UNetLayout(
    name="guided",
    title="a UNet of improved-diffusion or guided-diffusion",
    marks=MARKS,
    settings=frozenset(Settings.__annotations__),
    read=_read,
)
