"""The pipelines: what a call gives, what it compiles, and what it refuses."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from pipeline_models import SIZE, pipeline, tiny

import ddpm_jax as dj
from ddpm_jax.schedulers import SCHEDULERS

PIPELINES = (dj.DDPMPipeline, dj.DDIMPipeline, dj.PNDMPipeline)
QUIET = {"progress": False, "output_type": "np"}
KEY = jax.random.key(7)


@pytest.fixture(scope="module")
def ddim() -> dj.DDIMPipeline:
    return pipeline(dj.DDIMPipeline)


def denoise(params: Any, x: jax.Array, timestep: jax.Array) -> jax.Array:
    return tiny()[0].apply({"params": params}, x, timestep)


def by_scan(table: dj.Table, count: int = 3) -> np.ndarray:
    """Images in [0, 1] by the functional interface."""
    keys = dj.sample_keys(KEY, count)
    x_T = dj.prior(table, keys, (SIZE, SIZE, 1))
    x_0 = np.asarray(dj.sample(denoise, tiny()[1], table, x_T, keys))
    return np.clip(x_0 / 2 + np.float32(0.5), 0, 1)


# What a call gives.


@pytest.mark.parametrize("options", [{}, {"eta": 0.5}, {"use_clipped_model_output": True}])
def test_images_are_those_of_the_scan_bit_for_bit(ddim: dj.DDIMPipeline, options: dict[str, Any]):
    images = ddim(KEY, batch_size=3, num_inference_steps=12, **options, **QUIET).images
    np.testing.assert_array_equal(images, by_scan(ddim.scheduler.table(12, **options)))


@pytest.mark.parametrize("kind", SCHEDULERS)
def test_every_scheduler_works_in_every_pipeline(kind: type[dj.Scheduler]):
    table = kind.from_config(pipeline(dj.DDPMPipeline).scheduler.config).table(5)
    expected = by_scan(table)
    assert np.ptp(expected) > 0.5
    for cls in PIPELINES:
        pipe = pipeline(cls)
        pipe.scheduler = kind.from_config(pipe.scheduler.config)
        images = pipe(KEY, batch_size=3, num_inference_steps=5, **QUIET).images
        np.testing.assert_array_equal(images, expected)


def test_output_types(ddim: dj.DDIMPipeline):
    call = {"batch_size": 2, "num_inference_steps": 3, "progress": False}
    host = ddim(KEY, output_type="np", **call).images
    assert isinstance(host, np.ndarray)
    assert (host.dtype, host.shape) == (np.float32, (2, SIZE, SIZE, 1))
    assert 0 <= host.min() < host.max() <= 1
    device = ddim(KEY, output_type="jax", **call).images
    assert isinstance(device, jax.Array)
    np.testing.assert_array_equal(device, host)
    pictures = ddim(KEY, **call).images
    assert [(type(p), p.mode, p.size) for p in pictures] == [(Image.Image, "L", (SIZE, SIZE))] * 2
    np.testing.assert_array_equal(np.asarray(pictures[1]), (host[1, ..., 0] * 255).round())
    plain = ddim(KEY, output_type="np", return_dict=False, **call)
    assert type(plain) is tuple
    np.testing.assert_array_equal(plain[0], host)


@pytest.mark.parametrize(
    ("cls", "evaluations"), [(dj.DDPMPipeline, 1000), (dj.DDIMPipeline, 50), (dj.PNDMPipeline, 59)]
)
def test_defaults_and_progress_bar(cls: type, evaluations: int, capsys: pytest.CaptureFixture[str]):
    images = pipeline(cls)(KEY).images
    assert len(images) == 1
    assert f"{evaluations}/{evaluations}" in capsys.readouterr().err
    pipeline(cls)(KEY, progress=False)
    assert capsys.readouterr().err == ""


def test_callback_sees_the_predicted_images(ddim: dj.DDIMPipeline):
    seen: list[tuple[int, np.ndarray]] = []
    images = ddim(
        KEY,
        batch_size=3,
        num_inference_steps=12,
        callback=lambda done, images: seen.append((done, images)),
        callback_every=5,
        **QUIET,
    ).images
    assert [done for done, _ in seen] == [5, 10, 12]
    keys, table = dj.sample_keys(KEY, 3), ddim.scheduler.table(12)
    x_T = dj.prior(table, keys, (SIZE, SIZE, 1))
    _, previews = dj.sample_with_history(denoise, ddim.params, table, x_T, keys, every=5)
    # Other programs for the same sums: float32 rounding, not more.
    expected = np.clip(np.asarray(previews) / 2 + 0.5, 0, 1)
    np.testing.assert_allclose(np.stack([shown for _, shown in seen]), expected, atol=1e-5)
    np.testing.assert_allclose(seen[-1][1], images, atol=1e-5)


# Compilations.


def test_second_call_and_other_step_counts_compile_nothing(
    count_compilations: Callable[[], AbstractContextManager[Any]],
):
    pipe = pipeline(dj.DDIMPipeline, freq_shift=1)  # a model of its own: nothing is compiled yet
    with count_compilations() as compiled:
        pipe(KEY, batch_size=3, num_inference_steps=10, progress=False)
    assert compiled.count > 0
    again = dj.DDIMPipeline.from_pipe(pipe, unet=dj.UNet2DModel.from_config(pipe.unet.config))
    with count_compilations() as compiled:
        pipe(jax.random.key(1), batch_size=3, num_inference_steps=10, progress=False)
        pipe(KEY, batch_size=3, num_inference_steps=50, progress=False)
        pipe(KEY, batch_size=3, num_inference_steps=1000, progress=False)
        again(KEY, batch_size=3, num_inference_steps=7, progress=False)
    assert compiled.count == 0
    with count_compilations() as compiled:
        pipe(KEY, batch_size=3, num_inference_steps=10, eta=0.3, progress=False)
    assert compiled.count > 0  # noise is another structure ...
    ddpm = dj.DDPMPipeline.from_pipe(pipe)
    ddpm.scheduler = dj.DDPMScheduler()
    with count_compilations() as compiled:
        pipe(KEY, batch_size=3, num_inference_steps=20, eta=0.7, progress=False)
        ddpm(KEY, batch_size=3, num_inference_steps=30, progress=False)
    assert compiled.count == 0  # ... which DDPM shares


# Keys and starting points.


def test_chosen_images_are_redrawn(ddim: dj.DDIMPipeline):
    call = {"num_inference_steps": 6, "eta": 1.0, **QUIET}
    images = ddim(KEY, batch_size=3, **call).images
    keys = dj.sample_keys(KEY, 10)
    # The network's sums may be grouped otherwise in a batch of another size.
    np.testing.assert_allclose(ddim(keys[2:3], **call).images, images[2:3], atol=1e-5)
    some = ddim(keys[jnp.array([2, 0, 1])], batch_size=3, **call).images
    np.testing.assert_array_equal(some, images[[2, 0, 1]])
    assert not np.allclose(images[0], images[1], atol=0.1)


def test_legacy_keys(ddim: dj.DDIMPipeline):
    call = {"num_inference_steps": 3, **QUIET}
    typed = ddim(jax.random.key(7), batch_size=3, **call).images
    legacy = jax.random.PRNGKey(7)
    np.testing.assert_array_equal(ddim(legacy, batch_size=3, **call).images, typed)
    np.testing.assert_array_equal(ddim(np.asarray(legacy), batch_size=3, **call).images, typed)
    each = jax.random.key_data(dj.sample_keys(KEY, 3))
    np.testing.assert_array_equal(ddim(each, **call).images, typed)


def test_start_from_x_T(ddim: dj.DDIMPipeline):
    keys = dj.sample_keys(KEY, 3)
    x_T = dj.prior(ddim.scheduler.table(4), keys, (SIZE, SIZE, 1))
    expected = ddim(KEY, batch_size=3, num_inference_steps=4, **QUIET).images
    for start in (x_T, np.asarray(x_T), np.asarray(x_T, np.float64)):
        images = ddim(jax.random.key(99), x_T=start, num_inference_steps=4, **QUIET).images
        np.testing.assert_array_equal(images, expected)


def test_missing_key_is_a_type_error(ddim: dj.DDIMPipeline):
    with pytest.raises(TypeError):
        ddim(batch_size=2)  # pyright: ignore[reportCallIssue]


@pytest.mark.parametrize("key", [0, None, 1.5, np.zeros(2, np.int32)])
@pytest.mark.usefixtures("as_users_run")
def test_what_is_no_key(ddim: dj.DDIMPipeline, key: Any):
    with pytest.raises(TypeError, match=r"a key is jax.random.key\(seed\)"):
        ddim(key)


# Classes.


@pytest.fixture(scope="module")
def labelled() -> dj.DDIMPipeline:
    return pipeline(dj.DDIMPipeline, num_class_embeds=4)


def test_class_labels(
    labelled: dj.DDIMPipeline, count_compilations: Callable[[], AbstractContextManager[Any]]
):
    call = {"batch_size": 3, "num_inference_steps": 4, **QUIET}
    twos = labelled(KEY, class_labels=2, **call).images
    np.testing.assert_array_equal(labelled(KEY, class_labels=[2, 2, 2], **call).images, twos)
    with count_compilations() as compiled:
        mixed = labelled(KEY, class_labels=np.array([2, 0, 2]), **call).images
    assert compiled.count == 0
    np.testing.assert_array_equal(mixed[[0, 2]], twos[[0, 2]])
    assert not np.allclose(mixed[1], twos[1], atol=1e-3)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (4, r"class_labels must lie in 0..3, got \[4\]"),
        ([0, -1, 9], r"0..3, got \[-1, 9\]"),
        ([0, 1], "one or 3, one for each image; got 2"),
        (None, "class_labels are missing"),
    ],
)
def test_wrong_labels(labelled: dj.DDIMPipeline, labels: Any, words: str):
    with pytest.raises(ValueError, match=words):
        labelled(KEY, batch_size=3, class_labels=labels, **QUIET)


def test_labels_for_a_model_without_classes(ddim: dj.DDIMPipeline):
    with pytest.raises(ValueError, match="no class embedding"):
        ddim(KEY, class_labels=1, **QUIET)


# What is refused.


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"output_type": "latent"}, 'must be "pil", "np" or "jax", got \'latent\''),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"num_inference_steps": 0}, "0"),
        ({"num_inference_steps": 1001}, "1001"),
        ({"eta": -0.1}, "eta"),
        ({"callback_every": 0}, "callback_every must be at least 1"),
        ({"batch_size": 2.5}, "batch_size must be a whole number, got 2.5"),
        ({"batch_size": True}, "batch_size must be a whole number, got True"),
        ({"num_inference_steps": 2.5}, "num_inference_steps must be a whole number .*2.5"),
        ({"num_inference_steps": True}, "num_inference_steps must be a whole number .*True"),
        ({"callback_every": 1.5}, "callback_every must be a whole number, got 1.5"),
        ({"callback_every": True}, "callback_every must be a whole number, got True"),
        ({"sharding": "batch"}, "sharding must be a NamedSharding .*; got 'batch'"),
        ({"x_T": np.zeros((2, 8, 8, 3))}, r"x_T must be \(B, H, W, 1\), got shape \(2, 8, 8, 3\)"),
        ({"x_T": np.zeros((8, 8, 1))}, r"got shape \(8, 8, 1\)"),
        ({"x_T": np.zeros((2, 8, 8, 1)), "batch_size": 3}, "x_T holds 2 images, and 3 are asked"),
    ],
)
@pytest.mark.usefixtures("as_users_run")
def test_wrong_arguments(ddim: dj.DDIMPipeline, options: dict[str, Any], words: str):
    with pytest.raises(ValueError, match=words):
        ddim(KEY, progress=False, **options)


@pytest.mark.usefixtures("as_users_run")
def test_counts_may_be_numpy_s(ddim: dj.DDIMPipeline):
    seen: list[int] = []
    images = ddim(
        KEY,
        batch_size=np.int64(2),  # pyright: ignore
        num_inference_steps=np.int32(3),  # pyright: ignore
        callback=lambda done, _: seen.append(done),
        callback_every=np.int64(2),  # pyright: ignore
        **QUIET,
    ).images
    assert (len(images), seen) == (2, [2, 3])


def test_pil_for_other_channels_is_refused_before_sampling(monkeypatch: pytest.MonkeyPatch):
    model = tiny()[0].clone(in_channels=4, out_channels=4)
    pipe = dj.DDIMPipeline(unet=model, params={}, scheduler=dj.DDIMScheduler())
    monkeypatch.setattr("ddpm_jax.generation.run", lambda *_, **__: pytest.fail("it sampled"))
    with pytest.raises(ValueError, match='this model\'s have 4: pass output_type="np"'):
        pipe(KEY, num_inference_steps=2)


def test_keys_and_batch_size_must_agree(ddim: dj.DDIMPipeline):
    keys = dj.sample_keys(KEY, 3)
    with pytest.raises(ValueError, match="3 keys were given for a batch of 2"):
        ddim(keys, batch_size=2)
    with pytest.raises(ValueError, match=r"one key or \(B,\) keys"):
        ddim(keys.reshape(3, 1))


@pytest.mark.parametrize("options", [{"eta": 0.5}, {"use_clipped_model_output": True}])
def test_option_that_the_scheduler_lacks(options: dict[str, Any]):
    pipe = pipeline(dj.DDIMPipeline)
    pipe.scheduler = dj.EulerDiscreteScheduler()
    (name,) = options
    with pytest.raises(ValueError, match=f"EulerDiscreteScheduler takes no {name}"):
        pipe(KEY, **options)


def test_model_without_a_size_needs_x_T():
    pipe = pipeline(dj.DDIMPipeline, sample_size=None)
    with pytest.raises(ValueError, match="no sample_size: give x_T"):
        pipe(KEY)
    images = pipe(KEY, x_T=jnp.ones((1, 4, 12, 1)), num_inference_steps=2, **QUIET).images
    assert images.shape == (1, 4, 12, 1)


# Construction.


def test_components_and_conversion():
    model, params = tiny()
    given = dj.EulerDiscreteScheduler(beta_end=0.01)
    pipe = dj.DDPMPipeline(unet=model, params=params, scheduler=given)
    assert pipe.components == {"unet": model, "params": params, "scheduler": given}
    assert (pipe.unet, pipe.params, pipe.scheduler) == (model, params, given)
    ddim = dj.DDIMPipeline.from_pipe(pipe)
    assert ddim.scheduler == dj.DDIMScheduler(beta_end=0.01)
    assert ddim.params is params
    assert isinstance(dj.PNDMPipeline.from_pipe(ddim).scheduler, dj.PNDMScheduler)
    other = dj.PNDMScheduler(beta_start=0.001)
    assert dj.PNDMPipeline.from_pipe(ddim, scheduler=other).scheduler is other
    assert dj.DDPMPipeline.from_pipe(ddim, params={}).params == {}


@pytest.mark.usefixtures("as_users_run")
def test_scheduler_of_another_library_is_refused():
    model, params = tiny()
    with pytest.raises(ValueError, match="scheduler must be one of ddpm_jax's, got dict"):
        dj.DDPMPipeline(unet=model, params=params, scheduler={})  # pyright: ignore


@pytest.mark.usefixtures("as_users_run")
@pytest.mark.parametrize(
    ("scheduler", "words"),
    [
        ("ddim", "got str$"),
        (dj.DDIMScheduler, "got the class DDIMScheduler$"),
        (None, "got NoneType"),
    ],
)
def test_only_a_scheduler_may_be_assigned(scheduler: Any, words: str):
    pipe = pipeline(dj.DDPMPipeline)
    before = pipe.scheduler
    with pytest.raises(ValueError, match=f"scheduler must be one of ddpm_jax's, {words}"):
        pipe.scheduler = scheduler
    assert pipe.scheduler is before


@pytest.mark.usefixtures("as_users_run")
@pytest.mark.parametrize(
    ("replaced", "words"),
    [
        ({"unet": "digits"}, "unet must be a UNet2DModel, got str"),
        ({"unet": dj.UNet2DModel}, "unet must be a UNet2DModel, got the class UNet2DModel"),
        ({"params": None}, "params must be a nested dict of arrays, got NoneType"),
        ({"params": [1.0]}, "params must be a nested dict of arrays, got list"),
    ],
)
def test_other_components_are_refused(replaced: dict[str, Any], words: str):
    parts = pipeline(dj.DDPMPipeline).components
    with pytest.raises(ValueError, match=words):
        dj.DDPMPipeline(**(parts | replaced))


def test_repr_is_short():
    pipe = pipeline(dj.DDIMPipeline)
    count = sum(leaf.size for leaf in jax.tree.leaves(pipe.params))
    assert repr(pipe) == (
        f"DDIMPipeline(unet=<UNet2DModel, sample_size=8, in_channels=1, {count:,} params>, "
        "scheduler=<DDIMScheduler>)"
    )
