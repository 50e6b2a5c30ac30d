"""Folders of diffusers before its first release (June and July 2022), whose network is a
`UNetModel`.

    config.json                  ch, ch_mult, num_res_blocks, attn_resolutions, in_channels, out_ch,
                                 resolution, dropout, resamp_with_conv
    diffusion_model.pt           the names of `layouts.ddpm`; copies under other names beside them
    scheduler_config.json        timesteps, betas, variance_type, clip_sample or
                                 clip_predicted_image; also in a folder of its own
    model_index.json             unet, and scheduler or noise_scheduler

As its history says (huggingface/diffusers, src/diffusers/models/unet.py at 61ea57c and 6d5ef87).
"""

from collections.abc import Mapping
from typing import Any, cast

from weights_convert.errors import listed
from weights_convert.files import DIFFUSERS, candidates
from weights_convert.layouts.base import Network, Tensors, raise_if
from weights_convert.layouts.ddpm import unet
from weights_convert.ldm_configs import Config

CLASS = "UNetModel"
WEIGHTS = ("diffusion_model.pt", *candidates(None, DIFFUSERS))
"""The names of weight files, in the order in which they are looked for."""
SCHEDULER_FOLDERS = ("noise_scheduler", "scheduler", "")

_BETAS = ("beta_start", "beta_end", "beta_schedule", "trained_betas", "variance_type")
_OF_PAPER = "GaussianDDPMScheduler"
_SCHEDULERS = (_OF_PAPER, "DDPMScheduler", "DDIMScheduler", "PNDMScheduler")


def network(tensors: Tensors, config: Mapping[str, Any], scheduler: Mapping[str, Any]) -> Network:
    """The network in diffusers' form.

    Args:
        tensors: under the names of the file.
        config: the folder's config.json.
        scheduler: its scheduler's config; empty if there is none.

    Raises:
        ValueError: the tensors are not such a network, or differ from the config.
    """
    size = config.get("resolution")
    if type(size) is not int:
        raise ValueError(f"its config has no resolution, but {listed(config)}")
    found, made = unet(tensors, size)
    raise_if(_differences(config, made))
    made["dropout"] = config.get("dropout", 0.0)
    return Network(found, made, _scheduler(scheduler))


def _differences(config: Mapping[str, Any], made: Config) -> list[str]:
    """What a config says otherwise than the shapes of the tensors."""
    channels, mult = config.get("ch"), config.get("ch_mult")
    widths = [channels * one for one in mult] if channels and mult else None
    attends = [name.startswith("Attn") for name in made["down_block_types"]]
    at = [config["resolution"] // 2**i for i, one in enumerate(attends) if one]
    pairs = {
        "ch and ch_mult": (widths, made["block_out_channels"]),
        "num_res_blocks": (config.get("num_res_blocks"), made["layers_per_block"]),
        "in_channels": (config.get("in_channels"), made["in_channels"]),
        "out_ch": (config.get("out_ch"), made["out_channels"]),
        "attn_resolutions": (_descending(config.get("attn_resolutions")), at),
    }
    return [
        f"its config has {name} {said}, its tensors {found}"
        for name, (said, found) in pairs.items()
        if said is not None and said != found
    ]


def _descending(sizes: Any) -> list[int] | None:
    return sorted(cast(list[int], sizes), reverse=True) if isinstance(sizes, list) else None


def _scheduler(config: Mapping[str, Any]) -> Config:
    """Of today's names; without one, that of the paper."""
    named = config.get("_class_name", _OF_PAPER)
    if named not in _SCHEDULERS:
        raise ValueError(f"its scheduler is a {named!r}: known are {listed(_SCHEDULERS)}")
    made: Config = {"_class_name": "DDPMScheduler" if named == _OF_PAPER else named}
    made |= {name: config[name] for name in _BETAS if config.get(name) is not None}
    if made["_class_name"] != "DDPMScheduler":
        made.pop("variance_type", None)
    made["num_train_timesteps"] = config.get("timesteps", config.get("num_train_timesteps", 1000))
    if named != "PNDMScheduler":
        clip = config.get("clip_sample", config.get("clip_predicted_image", True))
        made["clip_sample"] = bool(clip)
    return made
