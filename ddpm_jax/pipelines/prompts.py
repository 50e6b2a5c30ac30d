"""Prompts to what a network is conditioned on."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from ddpm_jax.models import CLIPTextModel
from ddpm_jax.text.tokenizer import CLIPTokenizer, checked_texts

Texts: TypeAlias = str | Sequence[str]
Features: TypeAlias = Float[Array, "b n d"]


@dataclass(frozen=True)
class Prompts:
    """Checked prompts, not yet encoded.

    Attributes:
        count: number of prompts.
        texts: one for each, or their features.
        negative: the same for what guidance moves away from; None without guidance.
    """

    count: int
    texts: list[str] | Features
    negative: list[str] | Features | None


def check_prompts(
    prompt: Any,
    prompt_embeds: Any,
    negative_prompt: Any,
    negative_prompt_embeds: Any,
    *,
    shape: tuple[int, int],
    guided: bool,
) -> Prompts:
    """The prompts of a call.

    Args:
        prompt: one text or several, or None.
        prompt_embeds: (P, n, d) features in place of `prompt`, or None.
        negative_prompt: one for all prompts, or one for each; None is the empty text.
        negative_prompt_embeds: features in place of `negative_prompt`, or None.
        shape: (n, d) of the features of a text; the network takes any n.
        guided: whether the negative ones are used.

    Raises:
        ValueError: they are of a wrong type, shape or number, or both texts and features.
    """
    given = {
        "prompt": (prompt, prompt_embeds),
        "negative_prompt": (negative_prompt, negative_prompt_embeds),
    }
    for name, (texts, features) in given.items():
        if texts is not None and features is not None:
            raise ValueError(f"pass {name} or {name}_embeds, not both")
    if prompt is None and prompt_embeds is None:
        raise ValueError("pass a prompt, or prompt_embeds")
    positive: list[str] | Features = (
        checked_texts(prompt, "prompt")
        if prompt_embeds is None
        else _features(prompt_embeds, "prompt_embeds", shape[1])
    )
    if negative_prompt_embeds is not None:
        negative: list[str] | Features = _features(
            negative_prompt_embeds, "negative_prompt_embeds", shape[1]
        )
    else:
        texts = "" if negative_prompt is None else negative_prompt
        negative = checked_texts(texts, "negative_prompt")
        if len(negative) == 1:
            negative *= len(positive)
    lengths = [shape[0] if isinstance(one, list) else one.shape[1] for one in (positive, negative)]
    if guided and lengths[0] != lengths[1]:
        raise ValueError(
            f"prompts and negative prompts must have equally many tokens, got {lengths[0]} and "
            f"{lengths[1]}: pass both as embeddings of one length"
        )
    if len(negative) != len(positive):
        raise ValueError(
            f"negative prompts must be one, or {len(positive)} as the prompts; got {len(negative)}"
        )
    return Prompts(len(positive), positive, negative if guided else None)


def encode_prompts(
    prompts: Prompts,
    tokenizer: CLIPTokenizer,
    model: CLIPTextModel,
    params: Any,
    clip_skip: int = 0,
) -> tuple[Features, Features | None]:
    """The features of the prompts, and of the negative ones if there are any.

    All texts are encoded by one program.
    """
    both = [given for given in (prompts.texts, prompts.negative) if given is not None]
    texts = [text for given in both if isinstance(given, list) for text in given]
    encoded = iter(())
    if texts:
        found = _encoded(model, params, jnp.asarray(tokenizer(texts)), clip_skip)
        encoded = iter(jnp.split(found, len(texts) // prompts.count))
    done = [next(encoded) if isinstance(given, list) else given for given in both]
    return done[0], done[1] if len(done) > 1 else None


@partial(jax.jit, static_argnames=("model", "clip_skip"))
def _encoded(model: CLIPTextModel, params: Any, ids: Array, clip_skip: int) -> Any:
    return model.apply({"params": params}, ids, clip_skip)


def _features(given: ArrayLike, name: str, width: int) -> Features:
    shape = np.shape(given)
    if len(shape) != 3 or shape[2] != width or not shape[0] or not shape[1]:
        raise ValueError(f"{name} must be of shape (prompts, tokens, {width}), got shape {shape}")
    return jnp.asarray(given, jnp.float32)
