"""The config of a UNet with cross-attention: every fault that it can have, and its levels.

The keys and their meaning are those of diffusers' `UNet2DConditionModel`, as far as Stable
Diffusion uses them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ddpm_jax.models import checks

DOWN = {"CrossAttnDownBlock2D": True, "DownBlock2D": False}
UP = {"CrossAttnUpBlock2D": True, "UpBlock2D": False}
"""The block types, and whether they attend."""
MID = "UNetMidBlock2DCrossAttn"

FIXED: dict[str, Any] = {
    "addition_embed_type": None,
    "addition_embed_type_num_heads": 64,
    "addition_time_embed_dim": None,
    "attention_type": "default",
    "class_embed_type": None,
    "class_embeddings_concat": False,
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
    "cross_attention_norm": None,
    "dual_cross_attention": False,
    "encoder_hid_dim": None,
    "encoder_hid_dim_type": None,
    "mid_block_only_cross_attention": None,
    "num_attention_heads": None,
    "num_class_embeds": None,
    "projection_class_embeddings_input_dim": None,
    "resnet_out_scale_factor": 1.0,
    "resnet_skip_time_act": False,
    "resnet_time_scale_shift": "default",
    "reverse_transformer_layers_per_block": None,
    "time_cond_proj_dim": None,
    "time_embedding_act_fn": None,
    "time_embedding_dim": None,
    "time_embedding_type": "positional",
    "timestep_post_act": None,
}
"""Fields of diffusers' config that Stable Diffusion leaves at their defaults."""

PER_LEVEL = {
    "layers_per_block": checks.is_count,
    "attention_head_dim": checks.is_count,
    "transformer_layers_per_block": checks.is_count,
    "only_cross_attention": lambda value: isinstance(value, bool),
}
"""Fields with one value for all levels, or a list with one for each."""


@dataclass(frozen=True)
class Level:
    """What a down and an up block of the same resolution share."""

    width: int
    layers: int
    """Residual blocks of the down block; the up block has one more."""
    heads: int
    depth: int
    """Transformer blocks in an attention."""
    only_cross: bool


def levels(config: Any) -> tuple[Level, ...]:
    """The finest first."""
    count = len(config.block_out_channels)
    fields = (_for_each(getattr(config, name), count) for name in PER_LEVEL)
    return tuple(Level(*values) for values in zip(config.block_out_channels, *fields, strict=True))


def faults(config: Mapping[str, Any]) -> Iterator[str]:
    """Every fault, each as a sentence. Relations are checked only if each single field is valid."""
    single = [
        *checks.values(
            config,
            choices={"mid_block_type": (MID,), "downsample_padding": (0, 1)},
            counts=("in_channels", "out_channels", "norm_num_groups", "cross_attention_dim"),
            flags=(
                "center_input_sample",
                "flip_sin_to_cos",
                "use_linear_projection",
                "upcast_attention",
                "remat",
            ),
        ),
        *checks.of_images(config),
        *checks.numbers(config),
        *checks.blocks(config, {"down_block_types": tuple(DOWN), "up_block_types": tuple(UP)}),
    ]
    yield from single
    if not single:
        yield from _relations(config)


def _relations(config: Mapping[str, Any]) -> Iterator[str]:
    channels, groups = config["block_out_channels"], config["norm_num_groups"]
    for name, valid in PER_LEVEL.items():
        value = config[name]
        listed = isinstance(value, tuple)
        if listed and len(value) != len(channels):
            yield f"{name} must have an entry for each of {len(channels)} blocks, got {len(value)}"
        if not all(valid(one) for one in (value if listed else (value,))):
            kind = "true or false" if name == "only_cross_attention" else "positive integers"
            yield f"{name} must be {kind}, got {value!r}"
    if any(c % groups for c in channels):
        yield f"norm_num_groups {groups} does not divide all of block_out_channels {channels}"
    heads = _for_each(config["attention_head_dim"], len(channels))
    for count, width in zip(heads, channels, strict=False):
        if checks.is_count(count) and count > width:
            yield f"attention_head_dim {count}, the number of heads, exceeds {width} channels"


def _for_each(value: Any, count: int) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,) * count
