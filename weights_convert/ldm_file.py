"""A whole Stable Diffusion in one file: which of its tensors are of which network, and the configs
of these.
"""

import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, TypeAlias

from weights_convert import ldm, ldm_configs
from weights_convert.errors import listed
from weights_convert.layout import averaged
from weights_convert.ldm_configs import Config, Version
from weights_convert.tensors import Checkpoint, Stored

Kind: TypeAlias = Literal["text2img", "inpaint", "depth2img", "instruct_pix2pix"]

COMPONENTS = ("unet", "vae", "text_encoder")

_KINDS: dict[int, Kind] = {4: "text2img", 9: "inpaint", 5: "depth2img", 8: "instruct_pix2pix"}
"""By the channels of the UNet's input."""

_UNET, _EMA, _DEPTH = "model.diffusion_model.", "model_ema.", "depth_model."
_PARTS: dict[str, tuple[str, Callable[[ldm.Tensors], dict[str, Stored]]]] = {
    _UNET: ("unet", ldm.unet),
    "first_stage_model.": ("vae", ldm.vae),
    "vae.": ("vae", ldm.vae),
    "cond_stage_model.transformer.": ("text_encoder", ldm.text),
    "cond_stage_model.model.": ("text_encoder", ldm.open_clip),
}
_BUFFERS = re.compile(
    r"(betas|alphas_cumprod(_prev)?|sqrt_\w+|posterior_\w+|log_\w+|lvlb_weights|logvar|scale_factor"
    r"|global_step|cond_stage_model\.logit_scale)"
)
_BASE_STEP = 875_000
"""The optimizer steps of 2-base, the one text to image of version 2 that predicts eps."""


def is_stable_diffusion(names: Iterable[str]) -> bool:
    """Whether a file with these names is in this layout."""
    return any(name.startswith(tuple(_PARTS)) for name in names)


def has_average(names: Iterable[str]) -> bool:
    """Whether the names say that the UNet has a moving average."""
    return any(name.startswith(_EMA) for name in names)


def opened(
    checkpoint: Checkpoint,
    ema: bool,
    without_depth_estimator: bool,
    overrides: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """The fields of a `SingleFile` that the tensors decide.

    Raises:
        ValueError: as `open_single_file`.
    """
    parts = _parts(checkpoint.stored, without_depth_estimator)
    averages = _averages(parts.get(_UNET, {}), checkpoint.stored)
    if ema:
        missing = [name for name, average in averages.items() if average is None]
        if missing or not averages:
            raise ValueError(f"has no moving average (EMA) of {listed(missing) or 'a UNet'}")
        parts[_UNET] = {name: average for name, average in averages.items() if average}
    tensors = {name: turn(parts[p]) for p, (name, turn) in _PARTS.items() if p in parts}
    if len(tensors) < len(parts):
        raise ValueError(f"has one network under two prefixes, of {', '.join(parts)}")
    shapes = {name: ldm_configs.shapes_of(inside) for name, inside in tensors.items()}
    version = _version(shapes, parts)
    kind = _kind(shapes["unet"]) if "unet" in shapes else None
    configs = _configs(shapes, version, kind, checkpoint.global_step, overrides)
    # Not False: most published files have the average in place of the others.
    is_average = True if ema else None
    if "unet" in configs:
        configs["unet"] |= averaged(is_average)
    return {
        "is_average": is_average,
        "components": {name: Checkpoint(inside) for name, inside in tensors.items()},
        "configs": configs,
        "version": version,
        "kind": kind,
        "has_ema": any(averages.values()),
    }


def _parts(
    stored: Mapping[str, Stored], without_depth_estimator: bool
) -> dict[str, dict[str, Stored]]:
    """The tensors below each of the prefixes that the file has, without it."""
    parts: dict[str, dict[str, Stored]] = {}
    others: set[str] = set()
    for name, tensor in stored.items():
        prefix = next((prefix for prefix in _PARTS if name.startswith(prefix)), None)
        if prefix is not None:
            parts.setdefault(prefix, {})[name.removeprefix(prefix)] = tensor
        elif not _BUFFERS.fullmatch(name) and not name.startswith(_EMA):
            others.add(name.partition(".")[0])
    if not parts:
        raise ValueError(
            "is not a Stable Diffusion in one file: its names begin with "
            f"{listed(sorted(others)) or 'nothing'}, not with {', '.join(_PARTS)}"
        )
    depth = _DEPTH.removesuffix(".")
    if depth in others and not without_depth_estimator:
        raise ValueError(
            f"has a depth estimator ({_DEPTH}), which is not read from such a file: leave it out "
            "(without_depth_estimator), and take one from a folder"
        )
    if others - {depth}:
        warnings.warn(
            f"names that no Stable Diffusion has are left out: {listed(sorted(others - {depth}))}",
            stacklevel=5,
        )
    return parts


def _averages(unet: Mapping[str, Stored], stored: Mapping[str, Stored]) -> dict[str, Stored | None]:
    """The moving average of each of the UNet's tensors. Its name has no dots after the prefix."""
    model = _UNET.partition(".")[2]
    return {name: stored.get(_EMA + (model + name).replace(".", "")) for name in unet}


def _version(shapes: Mapping[str, ldm_configs.Shapes], parts: Mapping[str, Any]) -> Version | None:
    if "unet" in shapes:
        return ldm_configs.version_of(shapes["unet"])
    if "text_encoder" in shapes:
        return 2 if "cond_stage_model.model." in parts else 1
    return None


def _kind(unet: ldm_configs.Shapes) -> Kind:
    channels = unet["conv_in.weight"][1]
    if channels not in _KINDS:
        accepted = ", ".join(f"{count} ({kind})" for count, kind in _KINDS.items())
        raise ValueError(f"its UNet takes {channels} channels: must be one of {accepted}")
    return _KINDS[channels]


def _configs(
    shapes: Mapping[str, ldm_configs.Shapes],
    version: Version | None,
    kind: Kind | None,
    step: int | None,
    overrides: Mapping[str, Mapping[str, Any]],
) -> dict[str, Config]:
    """The config of each component, with the caller's fields."""
    predicts_v = _predicts_v(version, kind, step, overrides.get("scheduler", {}))
    configs: dict[str, Config] = {}
    if "unet" in shapes and version is not None:
        configs["unet"] = ldm_configs.unet(shapes["unet"], version, predicts_v)
        configs["scheduler"] = ldm_configs.scheduler(predicts_v)
    if "vae" in shapes:
        configs["vae"] = ldm_configs.vae(shapes["vae"], predicts_v)
    if "text_encoder" in shapes and version is not None:
        configs["text_encoder"] = ldm_configs.text(shapes["text_encoder"], version)
    return overridden(configs, overrides)


def overridden(
    configs: Mapping[str, Config], overrides: Mapping[str, Mapping[str, Any]]
) -> dict[str, Config]:
    """The configs with the caller's fields. ValueError for fields of a component without one."""
    unknown = sorted(overrides.keys() - configs.keys())
    if unknown:
        raise ValueError(
            f"overrides are for {listed(unknown)}, but the file has {', '.join(configs)}"
        )
    return {name: config | dict(overrides.get(name, {})) for name, config in configs.items()}


def _predicts_v(
    version: Version | None, kind: Kind | None, step: int | None, scheduler: Mapping[str, Any]
) -> bool:
    """Whether the UNet predicts v. No weight tells: of version 2, the number of steps does."""
    if "prediction_type" in scheduler:
        return scheduler["prediction_type"] == "v_prediction"
    if version != 2 or kind != "text2img":
        return False
    if step is None:
        warnings.warn(
            "a Stable Diffusion 2 that does not say what it predicts: v_prediction is assumed, "
            "which is right for 768 pixels; of the base model, for 512, set the scheduler's "
            "prediction_type to epsilon",
            stacklevel=6,
        )
    return step != _BASE_STEP
