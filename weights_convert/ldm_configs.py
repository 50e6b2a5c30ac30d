"""The configs of Stable Diffusion's networks in diffusers' form, from the shapes of their weights.

What no shape tells is what Stable Diffusion has: 8 heads in the UNet of version 1, heads of width
64 elsewhere, groups of 32. The shapes are those of the names that `ldm` returns.
"""

import re
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from weights_convert.tensors import Shape

Version: TypeAlias = Literal[1, 2]
Config: TypeAlias = dict[str, Any]

_HEAD = 64
"""Width of a head, but in the UNet of version 1."""
_V_SIZE = {False: 64, True: 96}
"""Width of the latents that a network was trained on; only those of 96 predict v."""
_VAE_SCALE = 8
_CONTEXT = {768: 1, 1024: 2}


class Shapes(dict[str, Shape]):
    """Shapes by name; a name that is missing is a ValueError that says so."""

    def __missing__(self, name: str) -> Shape:
        raise ValueError(f"has no {name}")

    def count(self, module: str) -> int:
        """The number of elements of a list of modules."""
        pattern = re.compile(rf"{re.escape(module)}\.(\d+)\.")
        return 1 + max((int(m[1]) for name in self if (m := pattern.match(name))), default=-1)

    def widths(self, blocks: str, conv: str = "resnets.0.conv1.weight") -> list[int]:
        """Output channels of each block."""
        return [self[f"{blocks}.{i}.{conv}"][0] for i in range(self.count(blocks))]


def version_of(shapes: Shapes) -> Version:
    """The version whose UNet has such a context. For a width of neither, version 2 is the one whose
    attentions begin with a linear layer.
    """
    attention = "mid_block.attentions.0"
    width = shapes[f"{attention}.transformer_blocks.0.attn2.to_k.weight"][1]
    linear = len(shapes[f"{attention}.proj_in.weight"]) == 2
    return _CONTEXT.get(width, 2 if linear else 1)  # pyright: ignore[reportReturnType]


def unet(shapes: Shapes, version: Version, predicts_v: bool) -> Config:
    """The config of a `UNet2DConditionModel`."""
    widths, ups = shapes.widths("down_blocks"), shapes.count("up_blocks")
    attention = "mid_block.attentions.0"
    block = f"{attention}.transformer_blocks"
    attends = [f"down_blocks.{i}.attentions.0.norm.weight" in shapes for i in range(len(widths))]
    attends_up = [f"up_blocks.{i}.attentions.0.norm.weight" in shapes for i in range(ups)]
    return {
        "_class_name": "UNet2DConditionModel",
        "sample_size": _V_SIZE[predicts_v],
        "in_channels": shapes["conv_in.weight"][1],
        "out_channels": shapes["conv_out.weight"][0],
        "block_out_channels": widths,
        "layers_per_block": shapes.count("down_blocks.0.resnets"),
        "down_block_types": ["CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attends],
        "up_block_types": ["CrossAttnUpBlock2D" if a else "UpBlock2D" for a in attends_up],
        "transformer_layers_per_block": shapes.count(block),
        "cross_attention_dim": shapes[f"{block}.0.attn2.to_k.weight"][1],
        # the number of heads, whatever its name
        "attention_head_dim": 8 if version == 1 else [max(1, width // _HEAD) for width in widths],
        "use_linear_projection": len(shapes[f"{attention}.proj_in.weight"]) == 2,
        "upcast_attention": predicts_v,  # these overflow in float16
        "norm_num_groups": 32,
    }


def vae(shapes: Shapes, predicts_v: bool) -> Config:
    """The config of an `AutoencoderKL`."""
    widths = shapes.widths("encoder.down_blocks")
    return {
        "_class_name": "AutoencoderKL",
        "sample_size": _VAE_SCALE * _V_SIZE[predicts_v],
        "in_channels": shapes["encoder.conv_in.weight"][1],
        "out_channels": shapes["decoder.conv_out.weight"][0],
        "latent_channels": shapes["decoder.conv_in.weight"][1],
        "block_out_channels": widths,
        "layers_per_block": shapes.count("encoder.down_blocks.0.resnets"),
        "down_block_types": ["DownEncoderBlock2D"] * len(widths),
        "up_block_types": ["UpDecoderBlock2D"] * len(widths),
        "norm_num_groups": 32,
        "scaling_factor": 0.18215,
    }


def text(shapes: Shapes, version: Version) -> Config:
    """The config of a `CLIPTextModel`."""
    vocabulary, width = shapes["text_model.embeddings.token_embedding.weight"]
    layers = "text_model.encoder.layers"
    return {
        "architectures": ["CLIPTextModel"],
        "model_type": "clip_text_model",
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": shapes[f"{layers}.0.mlp.fc1.weight"][0],
        "num_hidden_layers": shapes.count(layers),
        "num_attention_heads": max(1, width // _HEAD),
        "max_position_embeddings": shapes["text_model.embeddings.position_embedding.weight"][0],
        "hidden_act": "quick_gelu" if version == 1 else "gelu",
        "layer_norm_eps": 1e-5,
        "projection_dim": width if version == 1 else 512,
        # of the published configs; the tokenizer has ids of its own
        "bos_token_id": 0,
        "eos_token_id": 2,
        "pad_token_id": 1,
    }


def scheduler(predicts_v: bool) -> Config:
    """The config of a `DDIMScheduler` on the levels that Stable Diffusion was trained on."""
    return {
        "_class_name": "DDIMScheduler",
        "num_train_timesteps": 1000,
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "prediction_type": "v_prediction" if predicts_v else "epsilon",
        "timestep_spacing": "leading",
        "steps_offset": 1,
        "set_alpha_to_one": False,
        "clip_sample": False,
    }


def shapes_of(tensors: Mapping[str, Any]) -> Shapes:
    """The shapes of tensors that have not been read."""
    return Shapes({name: tensor.shape for name, tensor in tensors.items()})
