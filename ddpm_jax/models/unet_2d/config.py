"""The config of a UNet: every fault that it can have.

The keys and their meaning are those of diffusers' `UNet2DModel`.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import jax.numpy as jnp

from ddpm_jax.models.layers.config import ACTIVATIONS
from ddpm_jax.models.unet_2d.blocks import DOWN, MID, UP, plain_name

CHOICES = {
    "time_embedding_type": ("positional", "fourier", "learned"),
    "mid_block_type": (MID, None),
    "downsample_padding": (0, 1),
    "downsample_type": ("conv", "resnet"),
    "upsample_type": ("conv", "resnet"),
    "resnet_time_scale_shift": ("default", "scale_shift"),
    "class_embed_type": (None, "timestep", "identity"),
}
DTYPES = ("float32", "bfloat16", "float16")
COUNTS = ("in_channels", "out_channels", "layers_per_block", "norm_num_groups")
OPTIONAL_COUNTS = (
    "time_embedding_dim",
    "attention_head_dim",
    "attn_norm_num_groups",
    "num_class_embeds",
    "num_train_timesteps",
)
FLAGS = ("center_input_sample", "flip_sin_to_cos", "add_attention", "remat")
PER_BLOCK = ("block_out_channels", "down_block_types", "up_block_types")


def faults(config: Mapping[str, Any]) -> Iterator[str]:
    """Every fault, each as a sentence. Relations are checked only if each single field is valid."""
    single = [*_values(config), *_blocks(config)]
    yield from single
    if not single:
        yield from _relations(config)


def _values(config: Mapping[str, Any]) -> Iterator[str]:
    for name, accepted in CHOICES.items():
        if not any(
            config[name] == choice and type(config[name]) is type(choice) for choice in accepted
        ):
            yield f"{name} must be {_one_of(accepted)}, got {config[name]!r}"
    for name in COUNTS:
        if not _is_count(config[name]):
            yield f"{name} must be a positive integer, got {config[name]!r}"
    for name in OPTIONAL_COUNTS:
        if not (config[name] is None or _is_count(config[name])):
            yield f"{name} must be a positive integer or None, got {config[name]!r}"
    for name in FLAGS:
        if not isinstance(config[name], bool):
            yield f"{name} must be true or false, got {config[name]!r}"
    for name in ("dtype", "param_dtype"):
        if _dtype_name(config[name]) not in DTYPES:
            yield f"{name} must be {_one_of(DTYPES)}, got {config[name]!r}"
    yield from _numbers(config)
    if not (isinstance(config["act_fn"], str) and config["act_fn"].lower() in ACTIVATIONS):
        yield f"act_fn must be {_one_of(tuple(ACTIVATIONS))}, got {config['act_fn']!r}"
    if not _is_size(config["sample_size"]):
        yield (
            "sample_size must be a positive integer, a pair (height, width) of them or None, "
            f"got {config['sample_size']!r}"
        )


def _numbers(config: Mapping[str, Any]) -> Iterator[str]:
    scale, eps, rate = (config[k] for k in ("mid_block_scale_factor", "norm_eps", "dropout"))
    if not (_is_number(scale) and scale != 0):
        yield f"mid_block_scale_factor must be a number other than 0, got {scale!r}"
    if not (_is_number(eps) and eps >= 0):
        yield f"norm_eps must be a number of at least 0, got {eps!r}"
    if not (_is_number(rate) and 0 <= rate < 1):
        yield f"dropout must be a number in [0, 1), got {rate!r}"
    if not _is_number(config["freq_shift"]):
        yield f"freq_shift must be a number, got {config['freq_shift']!r}"


def _blocks(config: Mapping[str, Any]) -> Iterator[str]:
    for name in PER_BLOCK:
        if not (isinstance(config[name], tuple) and config[name]):
            yield f"{name} must be a list with an entry for each block, got {config[name]!r}"
            return
    lengths = {name: len(config[name]) for name in PER_BLOCK}
    if len(set(lengths.values())) > 1:
        counted = ", ".join(f"{count} {name}" for name, count in lengths.items())
        yield f"every block needs a width, a down type and an up type, got {counted}"
    if not all(_is_count(c) for c in config["block_out_channels"]):
        yield f"block_out_channels must be positive integers, got {config['block_out_channels']}"
    for name, known in (("down_block_types", DOWN), ("up_block_types", UP)):
        for block in dict.fromkeys(config[name]):
            if not (isinstance(block, str) and plain_name(block) in known):
                yield (
                    f"{name} has {block!r}, which is not supported; accepted: "
                    f"{_one_of(tuple(known))}, also with the prefix UNetRes"
                )


def _relations(config: Mapping[str, Any]) -> Iterator[str]:
    channels, groups = config["block_out_channels"], config["norm_num_groups"]
    if any(c % groups for c in channels):
        yield f"norm_num_groups {groups} does not divide all of block_out_channels {channels}"
    mid_groups = config["attn_norm_num_groups"]
    mid_attention = config["mid_block_type"] is not None and config["add_attention"]
    if mid_attention and mid_groups and channels[-1] % mid_groups:
        yield f"attn_norm_num_groups {mid_groups} does not divide the last of {channels}"
    narrowest = min(_attended(config), default=None)
    head_dim = config["attention_head_dim"]
    if head_dim and narrowest is not None and head_dim > narrowest:
        yield f"attention_head_dim {head_dim} exceeds the {narrowest} channels of an attention"
    if config["time_embedding_type"] == "learned" and config["num_train_timesteps"] is None:
        yield 'time_embedding_type "learned" needs num_train_timesteps, the rows of its table'
    if config["time_embedding_type"] == "positional" and channels[0] // 2 == config["freq_shift"]:
        yield (
            f"freq_shift {config['freq_shift']} makes the time embedding's frequencies infinite "
            f"where the first of block_out_channels is {channels[0]}"
        )


def training_faults(model: Any, scheduler: Any) -> Iterator[str]:
    """A sentence for each reason why a UNet cannot be trained under a scheduler."""
    kind = scheduler.variance_type
    wanted = model.in_channels * (2 if kind in ("learned", "learned_range") else 1)
    if model.out_channels != wanted:
        yield (
            f'variance_type "{kind}" needs out_channels = {wanted} for {model.in_channels} '
            f"in_channels, got {model.out_channels}"
        )
    if jnp.dtype(model.dtype) == jnp.float16:
        yield "float16 loses small gradients: compute in float32 or bfloat16"
    if model.class_embed_type is not None:
        yield f'class_embed_type "{model.class_embed_type}" cannot be trained on labels'
    if model.time_embedding_type == "fourier":
        yield (
            'time_embedding_type "fourier" takes the logarithm of the timestep, which is 0 at the '
            "first one"
        )
    rows, steps = model.num_train_timesteps, scheduler.num_train_timesteps
    if model.time_embedding_type == "learned" and (rows or 0) < steps:
        yield f"the model's num_train_timesteps is {rows}, the scheduler's {steps}"


def _attended(config: Mapping[str, Any]) -> Iterator[int]:
    """The widths at which the model attends."""
    channels = config["block_out_channels"]
    for known, names, widths in (
        (DOWN, config["down_block_types"], channels),
        (UP, config["up_block_types"], channels[::-1]),
    ):
        yield from (
            w for name, w in zip(names, widths, strict=True) if known[plain_name(name)].attention
        )
    if config["mid_block_type"] is not None and config["add_attention"]:
        yield channels[-1]


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")
    )


def _is_size(value: Any) -> bool:
    if isinstance(value, tuple):
        return len(value) == 2 and all(_is_count(side) for side in value)
    return value is None or _is_count(value)


def _dtype_name(value: Any) -> str | None:
    try:
        return jnp.dtype(value).name
    except TypeError:
        return None


def _one_of(accepted: tuple[Any, ...]) -> str:
    *rest, last = (repr(value) for value in accepted)
    return f"{', '.join(rest)} or {last}" if rest else last
