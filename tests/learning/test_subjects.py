"""The networks that tables are learned for are those of the pipelines' calls."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from pipelines.latent_models import parts
from pipelines.models import pipeline

import ddpm_jax as dj
from ddpm_jax.learning import subjects
from ddpm_jax.pipelines.unconditional import DDIMPipeline

KEYS = dj.sample_keys(jax.random.key(5), 3)
TABLE = dj.DDIMScheduler(clip_sample=False, timestep_spacing="trailing").table(2)


def end(subject: subjects.Subject) -> Any:
    params = {**subject.params, **subject.conditions}
    x_T = dj.prior(TABLE, KEYS, subject.shape)
    return dj.sample(subject.denoise, params, TABLE, x_T)


def test_labels_repeat() -> None:
    pipe = pipeline(DDIMPipeline, num_class_embeds=3)
    expected = pipe(
        KEYS, class_labels=[2, 0, 2], table=TABLE, output_type="np", progress=False
    ).images
    subject = subjects.unconditional(pipe, KEYS, (2, 0))
    images = np.clip(np.asarray(end(subject)) / 2 + 0.5, 0, 1)
    np.testing.assert_allclose(images, expected, atol=1e-5)
    # Clipped images of a random network may hide a class; its output does not.
    x, variables = dj.prior(TABLE, KEYS, subject.shape), {"params": pipe.params}
    told = jnp.float32(500)
    output = subject.denoise({**subject.params, **subject.conditions}, x, told)
    by_label = [pipe.unet.apply(variables, x, told, jnp.full(3, label)) for label in (2, 0)]
    np.testing.assert_allclose(output[0::2], by_label[0][0::2], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(output[1], by_label[1][1], rtol=1e-5, atol=1e-5)
    assert float(abs(by_label[0] - by_label[1]).max()) > 1e-3


def test_prompts_repeat_under_guidance() -> None:
    pipe = dj.StableDiffusionPipeline(**parts())
    prompts = ["a cat", "a dog"]
    expected = pipe(
        [*prompts, prompts[0]],
        KEYS,
        table=TABLE,
        guidance_scale=3.0,
        negative_prompt="night",
        output_type="latent",
        progress=False,
    ).images
    subject = subjects.prompted(pipe, KEYS, prompts, guidance_scale=3.0, negative_prompt="night")
    np.testing.assert_allclose(end(subject), expected, rtol=1e-4, atol=1e-4)
