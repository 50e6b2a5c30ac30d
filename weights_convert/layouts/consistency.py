"""Checkpoints of OpenAI's consistency models (`cd_*.pt`, `ct_*.pt`): the UNet of guided-diffusion,
which is told 250 log sigma.

Its attentions have the new order of heads. The levels of noise go from 0.002 to 80, and the data's
deviation is taken as 0.5. The EDM networks of the same release (`edm_*.pt`) have the same names and
shapes, but no consistency: no scheduler here tells a network 250 log sigma and reads it so.

Reference: Song et al. 2023, arXiv:2303.01469.
"""

from weights_convert.layouts.base import Network, Settings, Tensors, UNetLayout, needed, raise_if
from weights_convert.layouts.openai import MARKS, channels, heads_needed, unet


def _read(tensors: Tensors, settings: Settings) -> Network:
    wanted = {
        "sample_size": "width and height of its images",
        "num_train_timesteps": "its levels: 40 of cd_*, 201 of ct_imagenet64, 151 of ct_*256",
    }
    raise_if([*heads_needed(settings), *needed(settings, wanted)])
    found, config = unet(tensors, settings, "new")
    scheduler = {
        "_class_name": "CMStochasticIterativeScheduler",
        "num_train_timesteps": settings.num_train_timesteps,
        "sigma_min": 0.002,
        "sigma_max": 80.0,
        "sigma_data": 0.5,
        "s_noise": 1.0,
        "rho": 7.0,
        "clip_denoised": True,
    }
    return Network(found, config, scheduler)


def _possible(tensors: Tensors) -> bool:
    """A consistency model learns no variance."""
    taken, made = channels(tensors)
    return taken == made


CONSISTENCY = UNetLayout(
    name="consistency",
    title="a UNet of OpenAI's consistency models",
    marks=MARKS,
    settings=frozenset({"sample_size", "num_heads", "num_head_channels", "num_train_timesteps"}),
    possible=_possible,
    read=_read,
)
