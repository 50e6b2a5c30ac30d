"""Small Stable Diffusion models for the tests: random params, every component."""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from text.vocabulary import vocabulary

import ddpm_jax as dj

SIZE, FACTOR, TOKENS, WIDTH = 16, 2, 12, 8
"""Pixels, pixels of a latent, tokens of a prompt, width of their features."""

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SCHEDULER = {**BETAS, "clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}


@cache
def drawn(model: dj.Model) -> dict[str, Any]:
    """Random params, large enough for every input to matter."""
    random = np.random.default_rng(0)

    def draw(path: Any, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        kind, fan_in = path[-1].key, max(1, int(np.prod(leaf.shape[:-1])))
        spread = {"kernel": fan_in**-0.5, "embedding": 1.0}.get(kind, 0.2)
        values = random.normal(kind == "scale", spread, leaf.shape).astype(np.float32)
        return jax.device_put(values)  # jnp.asarray would compile for each shape

    return jax.tree_util.tree_map_with_path(draw, model.shapes())


@cache
def networks(channels: int = 4, **fields: Any) -> dict[str, dj.Model]:
    """The networks by component; `fields` are those of the UNet."""
    unet = {
        "sample_size": SIZE // FACTOR,
        "in_channels": channels,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "cross_attention_dim": WIDTH,
        "attention_head_dim": 2,
        "norm_num_groups": 4,
    }
    vae = dj.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(4, 8),
        norm_num_groups=2,
    )
    text = dj.CLIPTextModel(
        vocab_size=220,
        hidden_size=WIDTH,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=TOKENS,
        bos_token_id=0,
        eos_token_id=2,
    )
    return {"unet": dj.UNet2DConditionModel(**(unet | fields)), "vae": vae, "text_encoder": text}


def tokenizer() -> dj.CLIPTokenizer:
    """Of a small vocabulary."""
    return dj.CLIPTokenizer.from_vocabulary(*vocabulary(), max_length=TOKENS)


def parts(channels: int = 4, **fields: Any) -> dict[str, Any]:
    """The arguments of a pipeline's constructor."""
    models = networks(channels, **fields)
    return {
        **models,
        "params": {name: drawn(model) for name, model in models.items()},
        "tokenizer": tokenizer(),
        "scheduler": dj.PNDMScheduler(
            **BETAS, skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1
        ),
    }


def checker() -> tuple[dj.StableDiffusionSafetyChecker, dict[str, Any]]:
    """A safety checker that flags nothing."""
    model = dj.StableDiffusionSafetyChecker(
        projection_dim=8,
        vision_hidden_size=8,
        vision_intermediate_size=16,
        vision_num_hidden_layers=1,
        vision_num_attention_heads=2,
        vision_image_size=8,
        vision_patch_size=4,
    )
    thresholds = ("concept_embeds_weights", "special_care_embeds_weights")
    params = drawn(model)
    return model, params | {name: jnp.ones_like(params[name]) for name in thresholds}


def depth_estimator() -> tuple[dj.DPTForDepthEstimation, dict[str, Any]]:
    """A DPT whose depth lies above 0, where it is cut off."""
    from models.test_dpt import TINY

    model = dj.DPTForDepthEstimation.from_config(TINY)
    params = drawn(model)
    params["head"]["head.4"]["bias"] += 5
    return model, params
