"""The pipelines: results of a call, and compilations."""

import io
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from pipelines.models import SIZE, pipeline, tiny
from tqdm import tqdm

import ddpm_jax as dj
from ddpm_jax.pipelines.generate import moving
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


# Results.


@pytest.mark.parametrize("options", [{}, {"eta": 0.5}, {"use_clipped_model_output": True}])
def test_images_are_those_of_the_scan_bit_for_bit(ddim: dj.DDIMPipeline, options: dict[str, Any]):
    images = ddim(KEY, batch_size=3, num_inference_steps=12, **options, **QUIET).images
    np.testing.assert_array_equal(images, by_scan(ddim.scheduler.table(12, **options)))


DOWN = [kind for kind in SCHEDULERS if not kind.ascends]


# fast: test_tables::test_a_table_gives_the_images_of_its_scheduler
@pytest.mark.parametrize(
    "kind",
    [SCHEDULERS[0], *(pytest.param(kind, marks=pytest.mark.slow) for kind in DOWN[1:])],
)
def test_every_scheduler_works_in_every_pipeline(kind: type[dj.Scheduler]):
    ours = pipeline(dj.DDPMPipeline).scheduler
    scheduler = kind.from_config(ours.config) if kind.family == ours.family else kind()
    table = scheduler.table(5)
    expected = by_scan(table)
    assert np.ptp(expected) > 0.2
    for cls in PIPELINES:
        pipe = pipeline(cls)
        pipe.scheduler = scheduler
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
    pil = ddim(KEY, **call).images
    assert [(type(p), p.mode, p.size) for p in pil] == [(Image.Image, "L", (SIZE, SIZE))] * 2
    np.testing.assert_array_equal(np.asarray(pil[1]), (host[1, ..., 0] * 255).round())
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
    pipeline(cls)(KEY, num_inference_steps=5, progress=False)
    assert capsys.readouterr().err == ""


def test_the_bar_says_that_it_compiles_and_leaves_that_out_of_its_rate():
    shown = io.StringIO()
    bar = tqdm(total=4, file=shown, mininterval=0)
    advanced = moving(bar)
    assert bar.desc == "compiling: "
    time.sleep(0.2)
    advanced(1)
    assert bar.desc == ""
    assert (bar.n, bar.initial) == (1, 1)
    assert bar.format_dict["elapsed"] < 0.1
    advanced(2)
    assert bar.n == 3
    bar.close()
    moving(tqdm(disable=True))(1)


def test_parts_that_add_up_to_too_much_leave_a_bar_at_its_end():
    bar = tqdm(total=3, file=io.StringIO(), mininterval=0)
    advanced = moving(bar)
    for _ in range(30):
        advanced(0.1001)  # beyond 3, tqdm would warn
    assert bar.n == 3
    bar.close()


def test_callback_gets_the_predicted_images(ddim: dj.DDIMPipeline):
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
    # Other programs compute the same sums, so only float32 rounding differs.
    expected = np.clip(np.asarray(previews) / 2 + 0.5, 0, 1)
    np.testing.assert_allclose(np.stack([shown for _, shown in seen]), expected, atol=1e-5)
    np.testing.assert_allclose(seen[-1][1], images, atol=1e-5)


# Compilations.


def test_second_call_and_other_step_counts_compile_nothing(
    count_compilations: Callable[[], AbstractContextManager[Any]],
):
    pipe = pipeline(
        dj.DDIMPipeline, freq_shift=1
    )  # no other test has this model, so nothing is compiled yet
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


def test_chosen_images_are_generated_again(ddim: dj.DDIMPipeline):
    call = {"num_inference_steps": 6, "eta": 1.0, **QUIET}
    images = ddim(KEY, batch_size=3, **call).images
    keys = dj.sample_keys(KEY, 10)
    # A batch of another size may group the network's sums differently.
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
        (4, r"class_labels must lie in 0..3, got 4"),
        ([0, -1, 9], r"0..3, got -1, 9"),
        ([0, 1], "one or 3, one for each image; got 2"),
        (None, "class_labels are missing"),
    ],
)
def test_wrong_labels(labelled: dj.DDIMPipeline, labels: Any, words: str):
    with pytest.raises(ValueError, match=words):
        labelled(KEY, batch_size=3, class_labels=labels, **QUIET)
