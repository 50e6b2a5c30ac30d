"""Stable Diffusions in one file: diffusers' names turned into those of the original code.

The formulas are written from the side of diffusers, so that they are not those of the package.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch_files
from safetensors.numpy import save_file

from ddpm_jax.models import AutoencoderKL, CLIPTextModel, Model, UNet2DConditionModel
from weights_convert import to_torch

Arrays = dict[str, np.ndarray[Any, Any]]

UNET, VAE, EMA = "model.diffusion_model.", "first_stage_model.", "model_ema."
CLIP, OPEN_CLIP = "cond_stage_model.transformer.", "cond_stage_model.model."


def swapped(text: str, pairs: Mapping[str, str]) -> str:
    for new, old in pairs.items():
        text = re.sub(rf"\b{new}\b", old, text)
    return text


def unet_name(name: str, layers: int, attends_up: list[bool]) -> str:
    """A UNet's name in the original code."""
    ends = {
        r"time_embedding\.linear_1": "time_embed.0",
        r"time_embedding\.linear_2": "time_embed.2",
        "^conv_in": "input_blocks.0.0",
        "^conv_norm_out": "out.0",
        "^conv_out": "out.2",
    }
    resnet = {
        "norm1": "in_layers.0",
        "conv1": "in_layers.2",
        "time_emb_proj": "emb_layers.1",
        "norm2": "out_layers.0",
        "conv2": "out_layers.3",
        "conv_shortcut": "skip_connection",
    }
    if found := re.fullmatch(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.*)", name):
        side, i, kind, j, rest = found[1], int(found[2]), found[3], int(found[4]), found[5]
        size = layers + 1
        if kind == "downsamplers":
            return f"input_blocks.{size * (i + 1)}.0.{rest.replace('conv', 'op')}"
        if kind == "upsamplers":
            return f"output_blocks.{size * i + layers}.{1 + attends_up[i]}.{rest}"
        number = (
            f"input_blocks.{1 + size * i + j}"
            if side == "down"
            else f"output_blocks.{size * i + j}"
        )
        return (
            f"{number}.1.{rest}" if kind == "attentions" else f"{number}.0.{swapped(rest, resnet)}"
        )
    if found := re.fullmatch(r"mid_block\.(\w+)\.(\d)\.(.*)", name):
        attention = found[1] == "attentions"
        place = 1 if attention else 2 * int(found[2])
        return f"middle_block.{place}.{found[3] if attention else swapped(found[3], resnet)}"
    return swapped(name, ends)


def vae_name(name: str, levels: int) -> str:
    """An autoencoder's name in the original code."""
    if found := re.match(r"decoder\.up_blocks\.(\d+)\.(.*)", name):
        name = f"decoder.up.{levels - 1 - int(found[1])}.{found[2]}"
    pairs = {
        r"down_blocks": "down",
        r"mid_block\.resnets\.0": "mid.block_1",
        r"mid_block\.resnets\.1": "mid.block_2",
        r"mid_block\.attentions\.0": "mid.attn_1",
        r"downsamplers\.0": "downsample",
        r"upsamplers\.0": "upsample",
        "resnets": "block",
        "group_norm": "norm",
        "to_q": "q",
        "to_k": "k",
        "to_v": "v",
        r"to_out\.0": "proj_out",
        "conv_shortcut": "nin_shortcut",
        "conv_norm_out": "norm_out",
    }
    return swapped(name, pairs)


def unet_ldm(state: Mapping[str, Any]) -> dict[str, Any]:
    """A UNet's tensors, of any kind, below the original prefix."""
    layers = len({n.split(".")[3] for n in state if n.startswith("down_blocks.0.resnets.")})
    ups = 1 + max(int(n.split(".")[1]) for n in state if n.startswith("up_blocks."))
    attends = [any(n.startswith(f"up_blocks.{i}.attentions.") for n in state) for i in range(ups)]
    return {UNET + unet_name(name, layers, attends): one for name, one in state.items()}


def vae_ldm(state: Mapping[str, Any], prefix: str = VAE) -> dict[str, Any]:
    """An autoencoder's, whose linear layers become convolutions."""
    levels = 1 + max(int(n.split(".")[2]) for n in state if n.startswith("decoder.up_blocks."))
    found = {prefix + vae_name(name, levels): one for name, one in state.items()}
    return {
        name: one[:, :, None, None] if ".attn_1." in name and one.ndim == 2 else one
        for name, one in found.items()
    }


def open_clip_ldm(state: Mapping[str, Any]) -> dict[str, Any]:
    """A text encoder's in OpenCLIP's names, and what Stable Diffusion does not use."""
    short = {name.removeprefix("text_model."): one for name, one in state.items()}
    pairs = {
        r"encoder\.layers": "transformer.resblocks",
        "layer_norm1": "ln_1",
        "layer_norm2": "ln_2",
        r"self_attn\.out_proj": "attn.out_proj",
        r"mlp\.fc1": "mlp.c_fc",
        r"mlp\.fc2": "mlp.c_proj",
        r"embeddings\.token_embedding": "token_embedding",
        r"embeddings\.position_embedding\.weight": "positional_embedding",
        "final_layer_norm": "ln_final",
    }
    found = {
        OPEN_CLIP + swapped(name, pairs): one
        for name, one in short.items()
        if not re.search(r"[qkv]_proj", name)
    }
    for name in [name for name in short if ".q_proj." in name]:
        parts = [short[name.replace("q_proj", f"{part}_proj")] for part in "qkv"]
        old = swapped(name, pairs).replace("self_attn.q_proj.", "attn.in_proj_")
        found[OPEN_CLIP + old] = np.concatenate(parts)
    last = 1 + max(int(n.split(".")[2]) for n in short if n.startswith("encoder.layers."))
    extra = {n: -one for n, one in found.items() if ".resblocks.0." in n}
    found |= {n.replace("resblocks.0", f"resblocks.{last}"): one for n, one in extra.items()}
    return found | {OPEN_CLIP + "text_projection": np.ones((2, 2), np.float32)}


def ema_ldm(unet: Mapping[str, Any]) -> dict[str, Any]:
    """A moving average: all values negated, names without dots after the prefix."""
    flat = {EMA + name.removeprefix("model.").replace(".", ""): -one for name, one in unet.items()}
    return {**flat, EMA + "decay": np.float32(0.9999), EMA + "num_updates": np.int32(7)}


BUFFERS: Arrays = {
    "betas": np.ones(3, np.float32),
    "alphas_cumprod_prev": np.ones(3, np.float32),
    "sqrt_one_minus_alphas_cumprod": np.ones(3, np.float32),
    "posterior_log_variance_clipped": np.ones(3, np.float32),
    "logvar": np.ones(3, np.float32),
    "scale_factor": np.float32(0.18215),
    "cond_stage_model.logit_scale": np.float32(4.6),
    "first_stage_model.loss.perceptual_loss.net.weight": np.ones((2, 2), np.float32),
}


def random_state(params: Mapping[str, Any], seed: int = 0) -> Arrays:
    """Random values for a tree of shapes, in torch's names and layout."""
    rng = np.random.default_rng(seed)
    zeros = to_torch(_zeros(params))
    return {name: rng.normal(size=a.shape).astype(np.float32) for name, a in zeros.items()}


def _zeros(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {name: _zeros(one) for name, one in tree.items()}
    return np.zeros(tree.shape, np.float32)


def save(path: Path, state: Mapping[str, Any]) -> Path:
    """As safetensors."""
    save_file({name: np.ascontiguousarray(one) for name, one in state.items()}, path)
    return path


def save_ckpt(path: Path, state: Arrays, step: int = 875_000) -> Path:
    """As a training program's checkpoint, with an object of a class that is not installed."""
    items, records = torch_files.entries(state)
    callback = torch_files.named("pytorch_lightning.callbacks.model_checkpoint ModelCheckpoint")
    made = callback + b")\x81}(" + torch_files.text("best") + b"N" + b"ub"
    top = {
        "epoch": torch_files.number(3),
        "global_step": torch_files.number(step),
        "pytorch-lightning_version": torch_files.text("1.4.2"),
        "callbacks": b"}(" + callback + made + b"u",
        "optimizer_states": b"](" + made + b"e",
        "state_dict": torch_files.dictionary(items),
    }
    return torch_files.write_zip(path, torch_files.state_dict(top), records)


SMALL: dict[str, Model] = {
    "unet": UNet2DConditionModel(
        sample_size=64,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=64,
    ),
    "vae": AutoencoderKL(
        block_out_channels=(32, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        sample_size=512,
    ),
    "text_encoder": CLIPTextModel(
        vocab_size=20,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=1,
        max_position_embeddings=7,
        projection_dim=64,
        bos_token_id=0,
        eos_token_id=2,
    ),
}
"""Networks of version 1 that are found from their shapes alone."""


def small() -> dict[str, Arrays]:
    """Their tensors in diffusers' names."""
    return {name: random_state(model.shapes()) for name, model in SMALL.items()}


def one_file(parts: Mapping[str, Arrays]) -> Arrays:
    """Such tensors as those of one file."""
    text = {CLIP + name: one for name, one in parts.get("text_encoder", {}).items()}
    unet, vae = (
        turn(parts[name]) if name in parts else {}
        for name, turn in (("unet", unet_ldm), ("vae", vae_ldm))
    )
    return {**unet, **vae, **text}
