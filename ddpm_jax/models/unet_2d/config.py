"""The config of a UNet: every fault that it can have.

The keys and their meaning are those of diffusers' `UNet2DModel`.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import jax.numpy as jnp

from ddpm_jax.models import checks
from ddpm_jax.models.layers.basic import default_groups
from ddpm_jax.models.unet_2d import pyramids
from ddpm_jax.models.unet_2d.block_types import DOWN, MID, UP, plain_name

CHOICES = {
    "time_embedding_type": ("positional", "fourier", "learned"),
    "mid_block_type": (MID, None),
    "downsample_padding": (0, 1),
    "downsample_type": ("conv", "resnet"),
    "upsample_type": ("conv", "resnet"),
    "resnet_time_scale_shift": ("default", "scale_shift"),
    "class_embed_type": (None, "timestep", "identity"),
}
COUNTS = ("in_channels", "out_channels", "layers_per_block")
OPTIONAL_COUNTS = (
    "time_embedding_dim",
    "attention_head_dim",
    "norm_num_groups",
    "attn_norm_num_groups",
    "num_class_embeds",
    "num_train_timesteps",
)
BLOCKS = {"down_block_types": tuple(DOWN), "up_block_types": tuple(UP)}
FLAGS = ("center_input_sample", "flip_sin_to_cos", "add_attention", "remat")


def faults(config: Mapping[str, Any]) -> Iterator[str]:
    """Every fault, each as a sentence. Relations are checked only if each single field is valid."""
    single = [
        *checks.values(
            config, choices=CHOICES, counts=COUNTS, optional_counts=OPTIONAL_COUNTS, flags=FLAGS
        ),
        *checks.of_images(config),
        *checks.numbers(config),
        *checks.blocks(config, BLOCKS, plain_name),
    ]
    yield from single
    if not single:
        yield from _relations(config)


def _relations(config: Mapping[str, Any]) -> Iterator[str]:
    yield from pyramids.faults(config)
    yield from _groups(config)
    channels = config["block_out_channels"]
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


def _groups(config: Mapping[str, Any]) -> Iterator[str]:
    """Faults of the groups of all norms outside Skip blocks."""
    channels, groups = config["block_out_channels"], config["norm_num_groups"]
    others = [
        name
        for name in (*config["down_block_types"], *config["up_block_types"])
        if not pyramids.is_skip(name)
    ]
    if groups is None and others:
        yield f"norm_num_groups None is only for Skip blocks, and here is {others[0]!r}"
    elif others and any(c % groups for c in channels):
        yield f"norm_num_groups {groups} does not divide all of block_out_channels {channels}"
    elif not others:
        ends = (channels[0], *(() if config["mid_block_type"] is None else channels[-1:]))
        for width in dict.fromkeys(ends):
            own = default_groups(width) if groups is None else groups
            if not own or width % own:
                yield (
                    f"norm_num_groups {groups} makes {own} groups of {width} channels, which do "
                    "not divide them"
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
            w for name, w in zip(names, widths, strict=True) if known[plain_name(name)].attends
        )
    if config["mid_block_type"] is not None and config["add_attention"]:
        yield channels[-1]
