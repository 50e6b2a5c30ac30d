"""The networks that tables are learned for are those of the pipelines' calls."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from pipelines.latent_models import FACTOR, parts
from pipelines.latent_models import SIZE as PIXELS
from pipelines.models import SIZE, pipeline

import ddpm_jax as dj
from ddpm_jax.learning.subjects import Subject, prompted, unconditional
from ddpm_jax.pipelines.generate import with_conditions
from ddpm_jax.pipelines.unconditional import DDIMPipeline

KEYS = dj.sample_keys(jax.random.key(5), 3)


def check(subject: Subject, model: Any, params: Any, rows: dict[str, Any], *scale: float) -> None:
    """The network is the one that `with_conditions` makes of these rows for a pipeline's call."""
    denoise, wanted = with_conditions(model, params, rows, *scale)
    assert subject.denoise == denoise
    assert subject.conditions.keys() == rows.keys()
    given = {**subject.params, **subject.conditions}
    assert jax.tree.structure(given) == jax.tree.structure(wanted)
    for one, other in zip(jax.tree.leaves(given), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_labels_repeat() -> None:
    pipe = pipeline(DDIMPipeline, num_class_embeds=3)
    subject = unconditional(pipe, KEYS, (2, 0))
    assert subject.shape == (SIZE, SIZE, 1)
    check(subject, pipe.unet, pipe.params, {"context": jnp.array([2, 0, 2])})


def test_prompts_repeat_under_guidance() -> None:
    pipe = dj.StableDiffusionPipeline(**parts())
    subject = prompted(pipe, KEYS, ["a cat", "a dog"], guidance_scale=3.0, negative_prompt="night")
    assert (subject.shape, subject.guidance_scale) == ((PIXELS // FACTOR, PIXELS // FACTOR, 4), 3.0)
    ids = pipe.tokenizer(["a cat", "a dog", "a cat", "night", "night", "night"])
    encode = jax.jit(pipe.text_encoder.apply)
    context, negative = jnp.split(encode({"params": pipe.params["text_encoder"]}, ids), 2)
    rows = {"context": context, "negative": negative}
    check(subject, pipe.unet, pipe.params["unet"], rows, 3.0)
