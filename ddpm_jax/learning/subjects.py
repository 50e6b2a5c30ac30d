"""What a table is learned for: a pipeline's network, with conditions for each image."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Key

from ddpm_jax.pipelines.generate import with_conditions
from ddpm_jax.pipelines.inputs import image_labels, image_shape
from ddpm_jax.pipelines.prompts import check_prompts
from ddpm_jax.pipelines.text_to_image import StableDiffusionPipeline
from ddpm_jax.pipelines.unconditional import UnconditionalPipeline
from ddpm_jax.sampling.loops import Denoise


class Subject(NamedTuple):
    """The arguments of `learn_table` that follow from a model.

    Attributes:
        denoise: the network, with guidance if any.
        params: its first argument.
        conditions: one row for each image.
        shape: (H, W, C) of a sample.
        guidance_scale: of the guidance with prompts; None: there are no prompts.
    """

    denoise: Denoise
    params: Any
    conditions: dict[str, Any]
    shape: tuple[int, int, int]
    guidance_scale: float | None = None


def unconditional(
    pipe: UnconditionalPipeline, keys: Key[Array, "n"], labels: Sequence[int] = ()
) -> Subject:
    """A network in pixel space; the class of image i is labels[i % len(labels)]."""
    shape, count = image_shape(pipe.unet), len(keys)
    conditions = {}
    if labels:
        of_each = np.asarray(labels)[np.arange(count) % len(labels)]
        conditions["context"] = image_labels(pipe.unet, of_each, count)
    return _subject(pipe.unet, pipe.params, conditions, shape)


def prompted(
    pipe: StableDiffusionPipeline,
    keys: Key[Array, "n"],
    prompts: Sequence[str],
    *,
    guidance_scale: float,
    negative_prompt: str | None = None,
) -> Subject:
    """A network in latent space with guidance; the prompt of image i is prompts[i % len(prompts)].

    Its samples are latents.
    """
    height, width = (side // pipe.vae.factor for side in pipe.image_size(None, None))
    checked = check_prompts(
        list(prompts),
        None,
        negative_prompt,
        None,
        shape=(pipe.tokenizer.max_length, pipe.unet.cross_attention_dim),
        guided=guidance_scale > 1,
    )
    conditions = pipe.conditions(checked, 0, np.arange(len(keys)) % len(prompts))
    shape = (height, width, pipe.vae.latent_channels)
    return _subject(pipe.unet, pipe.params["unet"], conditions, shape, guidance_scale)


def _subject(
    model: Any,
    params: Any,
    conditions: dict[str, Any],
    shape: tuple[int, int, int],
    guidance_scale: float | None = None,
) -> Subject:
    denoise, given = with_conditions(model, params, conditions, guidance_scale or 1.0)
    rows = {name: given[name] for name in conditions}
    return Subject(denoise, given, rows, shape, guidance_scale)
