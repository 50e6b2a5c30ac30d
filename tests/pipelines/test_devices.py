"""A pipeline with its batch split over several devices."""

import jax
import numpy as np
import pytest
from launch import printed
from pipelines.models import tiny

from ddpm_jax.pipelines.generate import Network, is_cut, with_conditions


def test_a_network_with_cut_params():
    """The barrier that keeps XLA from putting params together once and for all changes no bit."""
    model, params = tiny()
    assert not is_cut(params)
    denoise, given = with_conditions(model, params, {})
    assert denoise.network == Network(model) != Network(model, cut=True)
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 1))
    plain, cut = (
        jax.jit(Network(model, cut=one)).lower(given["network"], x, 3.0, None)
        for one in (False, True)
    )
    assert "optimization_barrier" in cut.as_text()
    assert "optimization_barrier" not in plain.as_text()
    np.testing.assert_array_equal(
        *(program.compile()(given["network"], x, 3.0, None) for program in (plain, cut))
    )


@pytest.mark.slow  # fast: tests/sampling/test_sharding.py
def test_sharded_batch():
    """Eight host devices give the same noise and, up to rounding, the same images."""
    program = """
import jax, numpy as np, ddpm_jax as dj
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from pipelines.models import pipeline

mesh = jax.make_mesh((4, 2), ("batch", "other"), axis_types=(AxisType.Auto,) * 2)
pipe = pipeline(dj.DDIMPipeline, num_class_embeds=4)
labels = np.arange(10) % 4
call = dict(num_inference_steps=6, eta=1.0, output_type="jax", progress=False)
alone = pipe(jax.random.key(0), batch_size=10, class_labels=labels, **call).images
for spec in (P(("batch", "other")), P("batch", None, None, None)):
    split = NamedSharding(mesh, spec)
    images = pipe(
        jax.random.key(0), batch_size=10, class_labels=labels, sharding=split, **call
    ).images
    assert images.shape == (10, 8, 8, 1)
    np.testing.assert_allclose(images, alone, atol=1e-5)

# The program runs on all devices, and params that are already there are not copied.
from ddpm_jax.pipelines.inputs import make_inputs
params = jax.device_put(pipe.params, NamedSharding(mesh, P()))
table = pipe.scheduler.table(6, eta=1.0)
split = NamedSharding(mesh, P(("batch", "other")))
inputs = make_inputs(
    pipe.unet, table, jax.random.key(0), batch_size=10, class_labels=labels, sharding=split
)
assert inputs.x_T.shape == (16, 8, 8, 1) and inputs.count == 10
assert len(inputs.x_T.sharding.device_set) == 8
assert inputs.x_T.addressable_shards[0].data.shape[0] == 2
assert inputs.place(params)["conv_in"]["kernel"] is params["conv_in"]["kernel"]
noise = dj.noise(inputs.keys, 3, (8, 8, 1))[:10]
np.testing.assert_array_equal(noise, dj.noise(dj.sample_keys(jax.random.key(0), 10), 3, (8, 8, 1)))

# With prompts: every condition and the known part of an image is split too.
from pipelines.latent_models import SIZE, parts
inpaint = dj.StableDiffusionInpaintPipeline(**parts())
image = np.random.default_rng(0).random((SIZE, SIZE, 3), np.float32)
mask = (np.arange(SIZE * SIZE).reshape(SIZE, SIZE) % 7 < 3).astype(np.float32)
masked = dict(num_inference_steps=3, output_type="np", progress=False, image=image, mask_image=mask)
prompts = ["a cat", "dog", "hat"]
alone = inpaint(prompts, jax.random.key(0), **masked).images
found = inpaint(prompts, jax.random.key(0), sharding=split, **masked).images
assert found.shape == alone.shape == (3, SIZE, SIZE, 3)
np.testing.assert_allclose(found, alone, atol=1e-4)

for wrong in (P(), P(None, "batch"), P("batch", "other")):
    try:
        pipe(jax.random.key(0), sharding=NamedSharding(mesh, wrong), **call)
    except ValueError as error:
        assert "must split the batch axis" in str(error)
    else:
        raise AssertionError(wrong)
print("checked")
"""
    assert printed("-c", program, devices=8).strip() == "checked"
