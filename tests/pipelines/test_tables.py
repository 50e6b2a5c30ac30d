"""Any table in any pipeline."""

from typing import Any

import jax
import numpy as np
import pytest
from pipelines.models import SIZE, pipeline

import ddpm_jax as dj
from ddpm_jax.schedulers import SCHEDULERS

KEY = jax.random.key(3)
SHAPE = (SIZE, SIZE, 1)
CALL: dict[str, Any] = {"batch_size": 2, "output_type": "np", "progress": False}


DOWN = [kind for kind in SCHEDULERS if not kind.ascends]


@pytest.mark.parametrize("kind", DOWN, ids=lambda kind: kind.__name__)
def test_a_table_gives_the_images_of_its_scheduler(kind: Any):
    """The images equal those of a pipeline with that scheduler."""
    made = pipeline(dj.DDIMPipeline)
    ours = kind.family == made.scheduler.family
    scheduler = kind.from_config(made.scheduler.config) if ours else kind()
    expected = pipeline(dj.DDPMPipeline)
    expected.scheduler = scheduler
    images = made(KEY, table=scheduler.table(4), **CALL).images
    assert np.array_equal(images, expected(KEY, num_inference_steps=4, **CALL).images)


def test_a_table_that_starts_in_the_middle_is_image_to_image():
    pipe = pipeline(dj.DDPMPipeline)
    table = dj.DDIMScheduler().table(10, start=6)
    keys = dj.sample_keys(KEY, 2)
    x_T = dj.noised(table, np.full((2, *SHAPE), 0.5, np.float32), keys)
    images = pipe(KEY, table=table, x_T=x_T, output_type="jax", progress=False).images

    def denoise(params: Any, x: Any, timestep: Any) -> Any:
        return pipe.unet.apply({"params": params}, x, timestep)

    x_0 = dj.sample(denoise, pipe.params, table, x_T, keys)
    np.testing.assert_allclose(images, np.clip(x_0 / 2 + 0.5, 0, 1), atol=1e-6)


@pytest.mark.parametrize("options", [{"num_inference_steps": 7}, {"eta": 0.5}])
def test_a_table_and_an_option_that_it_replaces(options: dict[str, Any]):
    pipe = pipeline(dj.DDIMPipeline)
    name = next(iter(options))
    with pytest.raises(ValueError, match=f"table= replaces {name}={options[name]}"):
        pipe(KEY, table=pipe.scheduler.table(3), **options, **CALL)


@pytest.mark.parametrize("eta", [None, 0.0, 0.7])
def test_without_eta_a_run_has_the_default_of_its_scheduler(eta: float | None):
    """0.3 is TCD's, and 0 is not None."""
    pipe, options = pipeline(dj.DDIMPipeline), {} if eta is None else {"eta": eta}
    pipe.scheduler = dj.TCDScheduler.from_config(pipe.scheduler.config)
    table = pipe.scheduler.table(4, **options)
    assert (table.noise_scale is None) == (eta == 0)
    images = pipe(KEY, num_inference_steps=4, **options, **CALL).images
    assert np.array_equal(images, pipe(KEY, table=table, **CALL).images)
    assert np.array_equal(table.mix, pipe.scheduler.table(4, eta=0.3 if eta is None else eta).mix)


def test_an_eta_of_zero_is_for_every_scheduler():
    """As it asks for no noise, a scheduler need not have it."""
    pipe = pipeline(dj.DDIMPipeline)
    pipe.scheduler = dj.PNDMScheduler.from_config(pipe.scheduler.config)
    images = pipe(KEY, num_inference_steps=4, eta=0.0, **CALL).images
    assert np.array_equal(images, pipe(KEY, num_inference_steps=4, **CALL).images)
