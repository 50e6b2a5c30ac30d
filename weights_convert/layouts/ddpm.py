"""The UNet of Ho et al. in PyTorch, as ermongroup/ddim and pesser/pytorch_diffusion have it.

Its names are those of `ddpm_names`, and temb.dense.{0, 1}, which are time_embedding.linear_{1, 2}.

The attentions have one head and 1x1 convolutions; the pictures are padded at the right and bottom
before they are halved; epsilon of the norms is 1e-6; sines come first, and their frequencies reach
1/10000. The schedule is that of the paper.

Reference: Ho et al. 2020, arXiv:2006.11239; Song et al. 2020, arXiv:2010.02502.
"""

import re

from weights_convert import ddpm_names
from weights_convert.errors import listed
from weights_convert.layouts.base import (
    Network,
    Settings,
    Tensors,
    UNetLayout,
    linear,
    needed,
    raise_if,
)
from weights_convert.layouts.unet import check, described
from weights_convert.ldm_configs import Config, shapes_of
from weights_convert.names import origins
from weights_convert.tensors import Stored

_TIMES = {
    "temb.dense.0": "time_embedding.linear_1",
    "temb.dense.1": "time_embedding.linear_2",
}
_DROPPED = re.compile(
    r"logvar"  # of the training of "bayesian" models
    # copies under the names to come, of diffusers before its first release
    r"|mid_new\..+|mid\.(resnets|attentions)\..+"
    r"|(.+\.attn\.\d+|mid\.attn_1)\.(qkv|proj)\..+"
)
_WIDE_SHORTCUT = re.compile(r".+\.conv_shortcut\.weight")


def renamed(tensors: Tensors) -> tuple[dict[str, Stored], dict[str, str]]:
    """The tensors under diffusers' names, and for each of these the name that it had.

    Raises:
        ValueError: names that no such network has, or of parts that `UNet2DModel` does not have.
    """
    kept = {name: t for name, t in tensors.items() if not _DROPPED.fullmatch(name)}
    module_of = ddpm_names.renamer(kept)
    if wide := [name for name in kept if _WIDE_SHORTCUT.fullmatch(name)]:
        raise ValueError(f"UNet2DModel has no shortcuts of 3x3 convolutions: {listed(wide)}")

    def rename(name: str) -> str | None:
        module, _, leaf = name.rpartition(".")
        new = _TIMES.get(module) or module_of(module)
        return new and f"{new}.{leaf}"

    origin = origins(kept, rename, "such network")
    found = {
        new: linear(kept[old]) if ".attentions." in new else kept[old]
        for new, old in origin.items()
    }
    return found, origin


def unet(tensors: Tensors, sample_size: int | None) -> tuple[dict[str, Stored], Config]:
    """The tensors in diffusers' form, and the config. ValueError, with all faults, if they are not
    such a network.
    """
    found, origin = renamed(tensors)
    shapes = shapes_of(found)
    config = described(
        shapes,
        sample_size=sample_size,
        attention_head_dim=None,
        downsample_padding=0,
        norm_eps=1e-6,
        flip_sin_to_cos=False,
        freq_shift=1,
    )
    resamples = any(".downsamplers." in name for name in shapes)
    if len(config["block_out_channels"]) > 1 and not resamples:
        raise ValueError(
            "it halves and doubles pictures without convolutions (resamp_with_conv is false), "
            "which UNet2DModel does not"
        )
    check(shapes, config, origin)
    return found, config


def _read(tensors: Tensors, settings: Settings) -> Network:
    found, config = unet(tensors, settings.sample_size)
    at = config["down_block_types"].index(_ATTENDS) if _ATTENDS in config["down_block_types"] else 0
    hint = f", such as {16 << at}: the published networks attend at 16 pixels" if at else ""
    wanted = {
        "sample_size": f"width and height of its images{hint}",
        "variance_type": "fixed_large in the paper's CIFAR-10, fixed_small in its other models",
    }
    raise_if(needed(settings, wanted))
    scheduler = {
        "_class_name": "DDPMScheduler",
        "num_train_timesteps": settings.num_train_timesteps or 1000,
        "beta_schedule": settings.beta_schedule or "linear",
        "beta_start": 0.0001,
        "beta_end": 0.02,
        "variance_type": settings.variance_type,
        "prediction_type": "epsilon",
        "clip_sample": True,
    }
    return Network(found, config, scheduler)


_ATTENDS = "AttnDownBlock2D"

DDPM = UNetLayout(
    name="ddpm",
    title="the UNet of ermongroup/ddim and pesser/pytorch_diffusion",
    marks=(r"temb\.dense\.0\.weight", r"(down|up)\.\d+\.block\.\d+\.conv1\.weight"),
    settings=frozenset({"sample_size", "variance_type", "num_train_timesteps", "beta_schedule"}),
    read=_read,
)
