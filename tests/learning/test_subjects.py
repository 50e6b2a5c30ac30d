"""The networks that tables are learned for are those of the pipelines' calls."""

from typing import Any

import jax
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
    images = np.clip(np.asarray(end(subjects.unconditional(pipe, KEYS, (2, 0)))) / 2 + 0.5, 0, 1)
    np.testing.assert_allclose(images, expected, atol=1e-5)


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
