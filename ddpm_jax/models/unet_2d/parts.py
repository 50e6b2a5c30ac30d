"""The parts of a UNet, made from its config.

The modules made here become submodules of the module whose `__call__` makes them.
"""

from collections.abc import Callable, Iterator
from functools import partial

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Num

from ddpm_jax.hub.config import Config
from ddpm_jax.models.layers.config import LayerConfig
from ddpm_jax.models.layers.embeddings import Embedding, EmbeddingMLP, Fourier, sinusoid
from ddpm_jax.models.layers.skip_blocks import SkipDownBlock, SkipUpBlock
from ddpm_jax.models.layers.unet_blocks import DownBlock, MidBlock, UpBlock, make_attention
from ddpm_jax.models.layers.unet_path import Down, Up
from ddpm_jax.models.unet_2d.block_types import DOWN, UP, plain_name

Projection = Callable[[Num[Array, " b"]], Float[Array, "b d"]]


def down_blocks(config: Config, layer: LayerConfig) -> Iterator[Down]:
    """First to last. The last block does not resample."""
    widths, layers = config.block_out_channels, config.layers_per_block
    for i, (type_name, width) in enumerate(zip(config.down_block_types, widths, strict=True)):
        kind, last, name = DOWN[plain_name(type_name)], i == len(widths) - 1, f"down_blocks.{i}"
        if kind.resampler == "smooth":
            yield SkipDownBlock(layer, width, layers, kind.attends, not last, name=name)
            continue
        yield DownBlock(
            layer,
            width,
            layers,
            make_attention(layer) if kind.attends else None,
            None if last else kind.resampler or config.downsample_type,
            config.downsample_padding,
            name=name,
        )


def mid_block(config: Config, layer: LayerConfig) -> MidBlock:
    """The block at the smallest size."""
    groups = config.attn_norm_num_groups or (0 if layer.scale_shift else None)
    scale = config.mid_block_scale_factor
    attention = make_attention(layer, groups, scale) if config.add_attention else None
    return MidBlock(layer, attention, scale, name="mid_block")


def up_blocks(config: Config, layer: LayerConfig) -> Iterator[Up]:
    """First to last. The last block does not resample."""
    widths, layers = config.block_out_channels[::-1], config.layers_per_block + 1
    for i, (type_name, width) in enumerate(zip(config.up_block_types, widths, strict=True)):
        kind, last, name = UP[plain_name(type_name)], i == len(widths) - 1, f"up_blocks.{i}"
        if kind.resampler == "smooth":
            yield SkipUpBlock(layer, width, layers, kind.attends, not last, name=name)
            continue
        attention = make_attention(layer) if kind.attends else None
        resampler = None if last else kind.resampler or config.upsample_type
        yield UpBlock(layer, width, layers, attention, resampler, name=name)


def embed(
    config: Config, layer: LayerConfig, timestep: Num[Array, " b"], class_labels: ArrayLike | None
) -> Float[Array, "b e"]:
    """The sum of time and class embedding."""
    width = embedding_width(config)
    project = _time_projection(config, layer)
    emb = EmbeddingMLP(layer, width, name="time_embedding")(project(timestep))
    if class_labels is None:
        return emb
    labels = jnp.asarray(class_labels)
    if config.class_embed_type is None:
        rows = config.num_class_embeds
        labels = Embedding(rows, width, layer.param_dtype, name="class_embedding")(labels)
    elif config.class_embed_type == "timestep":
        labels = EmbeddingMLP(layer, width, name="class_embedding")(project(labels))
    return emb + labels.astype(layer.dtype)


def embedding_width(config: Config) -> int:
    """Of time and class embeddings."""
    return config.time_embedding_dim or 4 * config.block_out_channels[0]


def _time_projection(config: Config, layer: LayerConfig) -> Projection:
    """Maps timesteps to the input of the first linear layer."""
    width = config.block_out_channels[0]
    if config.time_embedding_type == "fourier":
        return Fourier(width, layer.param_dtype, name="time_proj")
    if config.time_embedding_type == "learned":
        return Embedding(config.num_train_timesteps, width, layer.param_dtype, name="time_proj")
    return partial(
        sinusoid,
        width=width,
        flip_sin_to_cos=config.flip_sin_to_cos,
        freq_shift=config.freq_shift,
    )


def some_labels(config: Config) -> Array | None:
    """Labels of the kind that the model takes, for one image."""
    if config.class_embed_type == "identity":
        return jnp.zeros((1, embedding_width(config)))
    if config.class_embed_type == "timestep":
        return jnp.ones(1)
    return None if config.num_class_embeds is None else jnp.zeros(1, jnp.int32)
