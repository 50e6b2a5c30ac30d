"""Classifier-free guidance: the formula, learned variances, compilations."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pipelines.models import pipeline, tiny

import ddpm_jax as dj
from ddpm_jax.hub import class_names

KEY = jax.random.key(0)


def network(params: Any, x: jax.Array, timestep: jax.Array, context: jax.Array) -> jax.Array:
    """Two channels more than x has: a prediction, and a learned variance."""
    prediction = params * x * context[:, None, None, None]
    return jnp.concatenate([prediction, prediction + timestep], axis=-1)


DENOISE = dj.guided(network)


def params_of(scale: float) -> dict[str, Any]:
    return {
        "network": jnp.float32(2),
        "context": jnp.array([3.0, 5.0]),
        "negative": jnp.array([1.0, 1.0]),
        "scale": jnp.float32(scale),
    }


@pytest.mark.parametrize("scale", [0.0, 1.0, 7.5])
def test_against_the_formula(scale: float):
    x, t = jax.random.normal(KEY, (2, 4, 4, 1)), jnp.float32(9)
    params = params_of(scale)
    with_context = network(2.0, x, t, params["context"])
    without = network(2.0, x, t, params["negative"])
    guided = DENOISE(params, x, t)
    expected = without + scale * (with_context - without)
    np.testing.assert_allclose(guided[..., :1], expected[..., :1], rtol=1e-6)
    np.testing.assert_array_equal(guided[..., 1:], with_context[..., 1:])


def test_a_pipeline_guides(count_compilations: Any):
    model, params = tiny(num_class_embeds=3)
    pipe = pipeline(dj.DDIMPipeline, num_class_embeds=3)
    call: dict[str, Any] = {
        "num_inference_steps": 3, "output_type": "np", "progress": False, "class_labels": [0, 1]
    }  # fmt: skip
    with pytest.raises(ValueError, match="pass negative_labels"):
        pipe(KEY, batch_size=2, guidance_scale=2.0, **call)
    pipe.class_names = {0: "cat", 1: "dog", 2: "no class"}
    guided = pipe(KEY, batch_size=2, guidance_scale=2.0, **call).images

    def conditional(params: Any, x: Any, t: Any, labels: Any) -> Any:
        return model.apply({"params": params}, x, t, class_labels=labels)

    keys, table = dj.sample_keys(KEY, 2), pipe.scheduler.table(3)
    given = {"network": params, "context": jnp.array([0, 1]), "negative": jnp.array([2, 2])}
    x_0 = dj.sample(
        dj.guided(conditional),
        {**given, "scale": jnp.float32(2)},
        table,
        dj.prior(table, keys, (8, 8, 1)),
    )
    np.testing.assert_allclose(guided, np.clip(np.asarray(x_0) / 2 + 0.5, 0, 1), atol=1e-5)
    plain = pipe(KEY, batch_size=2, **call).images
    with count_compilations() as compiled:
        pipe(KEY, batch_size=2, guidance_scale=5.0, **call)
        same = pipe(KEY, batch_size=2, guidance_scale=1.0, **call).images
    assert compiled.count == 0
    np.testing.assert_array_equal(same, plain)
    assert not np.allclose(guided, plain, atol=1e-3)
    with pytest.raises(ValueError, match="guidance_scale needs class_labels"):
        pipe(KEY, batch_size=2, guidance_scale=2.0, num_inference_steps=3, progress=False)


@pytest.mark.parametrize("timestep", [100.0, 300.0, 450.0, 600.0, 700.0])
def test_an_interval(timestep: float):
    """The scale is 1 outside, where the output is the conditional one."""
    x, params = jax.random.normal(KEY, (2, 4, 4, 1)), params_of(7.5)
    limited = DENOISE(params | {"interval": jnp.array([300.0, 600.0])}, x, jnp.float32(timestep))
    scale = 7.5 if 300 <= timestep <= 600 else 1.0
    np.testing.assert_allclose(limited, DENOISE(params_of(scale), x, jnp.float32(timestep)))


@pytest.mark.parametrize("kind", [dj.DDIMScheduler, dj.EulerDiscreteScheduler, dj.PNDMScheduler])
def test_an_interval_of_noise_levels(kind: Any):
    """The rows whose sigma / alpha lies in (low, high], by their timesteps."""
    table = kind().table(10, dtype=np.float64)
    ratio = table.level[:, 1] / table.level[:, 0]
    low, high = float(ratio[-3]), float(ratio[2])
    first, last = dj.guidance_interval(table, low, high)
    inside = (first <= table.timestep) & (table.timestep <= last)
    assert np.array_equal(inside, (low < ratio) & (ratio <= high))
    assert inside[2]
    assert not inside[-3]
    nowhere = dj.guidance_interval(table, 1e6, np.inf)
    assert not ((nowhere[0] <= table.timestep) & (table.timestep <= nowhere[1])).any()


def test_an_interval_where_nothing_is_left_of_the_data():
    """At zero terminal SNR sigma / alpha is infinite."""
    config = {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
    table = dj.DDIMScheduler(**config, timestep_spacing="trailing").table(5)
    assert dj.guidance_interval(table, 0, np.inf).tolist() == [199, 999]
    assert dj.guidance_interval(table, 0, 1e9).tolist() == [199, 799]


def test_pipelines_guide_in_an_interval(count_compilations: Any):
    pipe = pipeline(dj.DDIMPipeline, num_class_embeds=3)
    call: dict[str, Any] = {
        "num_inference_steps": 3, "output_type": "np", "progress": False, "class_labels": [0, 1],
        "batch_size": 2, "negative_labels": 2, "guidance_scale": 4.0,
    }  # fmt: skip
    guided = pipe(KEY, **call).images
    with count_compilations() as compiled:
        everywhere = pipe(KEY, guidance_interval=(0, np.inf), **call).images
        nowhere = pipe(KEY, guidance_interval=(1e6, 1e7), **call).images
        some = pipe(KEY, guidance_interval=(0, 1.0), **call).images
    assert compiled.count == 0
    np.testing.assert_array_equal(everywhere, guided)
    plain = pipe(KEY, **call | {"guidance_scale": 1.0}).images
    np.testing.assert_allclose(nowhere, plain, atol=1e-5)
    assert min(np.abs(some - other).max() for other in (guided, plain)) > 1e-3


@pytest.mark.usefixtures("as_users_run")
@pytest.mark.parametrize(
    ("interval", "scale", "words"),
    [
        ((2.0, 1.0), 2.0, "a guidance interval is .low, high.*got .2.0, 1.0."),
        ((-1.0, 1.0), 2.0, "0 <= low < high"),
        (("0", 1.0), 2.0, "noise levels"),
        (3.0, 2.0, "guidance_interval must be .low, high., got 3.0"),
        ((0.3, 1.0), 1.0, "guidance_interval needs a guidance_scale above 1, got 1.0"),
    ],
)
def test_wrong_intervals(interval: Any, scale: float, words: str):
    pipe = pipeline(dj.DDIMPipeline, num_class_embeds=3)
    with pytest.raises(ValueError, match=words):
        pipe(
            KEY, class_labels=0, negative_labels=2, guidance_scale=scale, guidance_interval=interval
        )


def test_a_number_is_a_number_though_a_class_has_it_as_its_name():
    names = {0: "ten", 1: "0", 2: "dog"}
    assert class_names.numbers_of([0, "0", "2", "dog"], names) == [0, 1, 2, 2]
    with pytest.raises(ValueError, match="no class is named cow, x: 0 ten, 1 0, 2 dog"):
        class_names.numbers_of(["cow", "dog", "x"], names)


def test_names_of_classes_are_saved_and_passed_on(tmp_path: Any):
    pipe = pipeline(dj.DDIMPipeline, num_class_embeds=3)
    pipe.class_names = {0: "cat", 1: "dog", 2: "no class"}
    pipe.save_pretrained(tmp_path / "saved")
    again = dj.DDPMPipeline.from_pretrained(tmp_path / "saved")
    assert dj.PNDMPipeline.from_pipe(again).class_names == pipe.class_names
    with pytest.raises(ValueError, match="no class is named cow: 0 cat, 1 dog"):
        again(KEY, class_labels="cow", num_inference_steps=2, progress=False)
