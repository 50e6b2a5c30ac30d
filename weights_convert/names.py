"""Old names to current names: of tensors, of classes, and of fields in configs.

diffusers has renamed modules since its first release, and still reads most of the old names:

    mid, downsample_blocks, upsample_blocks, time_steps    prefixes of the first release
    attentions.N.{query,key,value,proj_attn}               now to_q, to_k, to_v, to_out.0
    attentions.N.{NIN_0,...,NIN_3}.{W,b}, .GroupNorm_0     score_sde's; W is a transposed weight
    *.op, downsamplers.N.Conv2d_0, time_proj.W             second names, sometimes both are stored
    _orig_mod., module.                                    before all names: of a wrapped module
"""

import re
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import numpy as np

from weights_convert.errors import listed
from weights_convert.tensors import Array, Stored, raw_bytes

OLD_CLASSES = {
    "UNetUnconditionalModel": "UNet2DModel",
    "DDPM": "DDPMPipeline",
    "DDIM": "DDIMPipeline",
    "PNDM": "PNDMPipeline",
}
"""Classes of diffusers' first releases, and their names today."""

OLD_UNET_FIELDS = {
    "image_size": "sample_size",
    "num_res_blocks": "layers_per_block",
    "block_channels": "block_out_channels",
    "down_blocks": "down_block_types",
    "up_blocks": "up_block_types",
    "downscale_freq_shift": "freq_shift",
    "resnet_num_groups": "norm_num_groups",
    "resnet_act_fn": "act_fn",
    "resnet_eps": "norm_eps",
    "num_head_channels": "attention_head_dim",
}
"""Fields of a UNet's config before diffusers' first release, and their names today."""

OLD_SCHEDULER_FIELDS = {
    "timesteps": "num_train_timesteps",
    "set_alpha_to_zero": "set_alpha_to_one",  # of DDIMInverse
}
"""The same of a scheduler's config."""

_PREFIXES = {
    "time_steps": "time_proj",
    "mid": "mid_block",
    "downsample_blocks": "down_blocks",
    "upsample_blocks": "up_blocks",
}
_ATTENTION = {
    "query": "to_q",
    "key": "to_k",
    "value": "to_v",
    "proj_attn": "to_out.0",
    "NIN_0": "to_q",
    "NIN_1": "to_k",
    "NIN_2": "to_v",
    "NIN_3": "to_out.0",
    "GroupNorm_0": "group_norm",
}
_WRAPPERS = ("_orig_mod.", "module.")
_LEAVES = {"W": "weight", "b": "bias", "weight": "weight", "bias": "bias"}

_OLD_ATTENTION = re.compile(rf"(.*\battentions\.\d+)\.({'|'.join(_ATTENTION)})\.(W|b|weight|bias)")
_PROJECTION = re.compile(r".*\battentions\.\d+\.(to_q|to_k|to_v|to_out\.0)\.weight")
_CONV_TWIN = re.compile(
    r"(.*)\.op\.(weight|bias)|(.*\b(?:down|up)samplers\.\d+)\.Conv2d_0\.(weight|bias)"
)


def current_name(name: str) -> str:
    """The current diffusers name of a tensor. A current name is returned unchanged.

    >>> current_name("mid.attentions.0.proj_attn.bias")
    'mid_block.attentions.0.to_out.0.bias'
    >>> current_name("downsample_blocks.0.downsamplers.0.op.weight")
    'down_blocks.0.downsamplers.0.conv.weight'
    """
    first, dot, rest = name.partition(".")
    name = _PREFIXES.get(first, first) + dot + rest if dot else name
    if name == "time_proj.W":
        return "time_proj.weight"
    if found := _OLD_ATTENTION.fullmatch(name):
        return f"{found[1]}.{_ATTENTION[found[2]]}.{_LEAVES[found[3]]}"
    if found := _CONV_TWIN.fullmatch(name):
        return f"{found[1] or found[3]}.conv.{found[2] or found[4]}"
    return name


def origins(names: Iterable[str], rename: Callable[[str], str | None], what: str) -> dict[str, str]:
    """For each new name the one that it had. ValueError for names that no `what` has: those without
    a new one, or with that of another.
    """
    found: dict[str, str] = {}
    strange: list[str] = []
    for name in names:
        new = rename(name)
        if new is None or new in found:
            strange.append(name)
        else:
            found[new] = name
    if strange:
        raise ValueError(f"names that no {what} has: {listed(strange)}")
    return found


def without_wrappers(stored: Mapping[str, Stored]) -> dict[str, Stored]:
    """The same tensors without what a wrapped module puts before all of its names.

    Warns if it removes something.
    """
    tensors: dict[str, Stored] = dict(stored)
    removed = ""
    while prefix := _wrapper_of(tensors):
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
        removed += prefix
    if removed:
        warnings.warn(
            f"all names of the weights begin with {removed!r}, which torch.compile or "
            "DistributedDataParallel adds: it is removed",
            stacklevel=2,
        )
    return tensors


def _wrapper_of(names: Collection[str]) -> str | None:
    """The wrapper's prefix that all names have, if any."""
    found = [p for p in _WRAPPERS if names and all(name.startswith(p) for name in names)]
    return found[0] if found else None


def current_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """A component's config with today's names of its class and of its fields."""
    old = str(config.get("_class_name"))  # [file, class] of custom code has no other name
    fields = OLD_SCHEDULER_FIELDS if "Scheduler" in old else OLD_UNET_FIELDS
    named = {
        fields[key] if key in fields and fields[key] not in config else key: value
        for key, value in config.items()
    }
    return named | ({"_class_name": OLD_CLASSES[old]} if old in OLD_CLASSES else {})


def with_current_names(stored: Mapping[str, Stored]) -> dict[str, Stored]:
    """The same tensors under current names and in the current layout, each stored once.

    Raises:
        ValueError: a tensor is stored under two names, with different shapes or dtypes. If only
            the values differ, reading the tensor raises the error.
    """
    found: dict[str, tuple[str, Stored]] = {}
    faults: list[str] = []
    for old in sorted(stored, key=lambda old: current_name(old) != old):  # current names first
        new = current_name(old)
        tensor = _in_current_layout(old, new, stored[old])
        first, kept = found.setdefault(new, (old, tensor))
        if first == old:
            continue
        if (kept.shape, kept.dtype) != (tensor.shape, tensor.dtype):
            faults.append(f"{first} and {old}")
        found[new] = first, _checked(kept, tensor, f"{first} and {old}")
    if faults:
        raise ValueError(f"two copies of one tensor differ in shape or dtype: {listed(faults)}")
    return {new: tensor for new, (_, tensor) in found.items()}


def _in_current_layout(old: str, new: str, tensor: Stored) -> Stored:
    if old.endswith(".W") and len(tensor.shape) == 2:
        return tensor.mapped(tensor.shape[::-1], np.transpose)
    if _PROJECTION.fullmatch(new) and len(tensor.shape) == 4 and tensor.shape[2:] == (1, 1):
        return tensor.mapped(tensor.shape[:2], lambda array: array.reshape(array.shape[:2]))
    return tensor


def _checked(tensor: Stored, copy: Stored, names: str) -> Stored:
    """The tensor; reading it checks that the bytes of a copy are equal, of NaN too."""

    def same(array: Array) -> Array:
        left, right = (raw_bytes(np.asarray(one, order="C")) for one in (array, copy.read()))
        if left != right:
            raise ValueError(f"{names} are one tensor but differ in value")
        return array

    return tensor.mapped(tensor.shape, same)
