"""Tables walked up, and interpolation between what they end at."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pipelines.models import SIZE, pipeline

import ddpm_jax as dj
from tests.schedulers.propagate import propagate

TABLES = {
    "ddim": dj.DDIMScheduler(clip_sample=False),
    "v": dj.DDIMScheduler(clip_sample=False, prediction_type="v_prediction"),
    "above the data": dj.DDIMScheduler(set_alpha_to_one=False, clip_sample=False),
    "euler": dj.EulerDiscreteScheduler(),
}
tables = pytest.mark.parametrize("scheduler", TABLES.values(), ids=TABLES.keys())


@tables
def test_the_same_output_leads_back(scheduler: Any):
    """Row by row, for any output: up and then down is where it began."""
    down = scheduler.table(10, dtype=np.float64)
    up = dj.inverted(down, np.float64)
    rng = np.random.default_rng(0)
    x, outputs = rng.standard_normal((1, 2, 2, 1)), rng.standard_normal((10, 1, 2, 2, 1))
    noise = propagate(up, lambda _, i: outputs[9 - i], x)[-1]
    np.testing.assert_allclose(propagate(down, lambda _, i: outputs[i], noise)[-1], x, rtol=1e-9)
    assert np.array_equal(up.timestep, down.timestep[::-1])


@tables
def test_levels_and_readings(scheduler: Any):
    """A row begins at the level where the row above it ends, and its x0 is that of the output."""
    down = scheduler.table(10, dtype=np.float64)
    up = dj.inverted(down, np.float64)
    np.testing.assert_allclose(up.level[1:], down.level[:0:-1], rtol=1e-9)
    np.testing.assert_allclose(up.in_scale * np.hypot(*up.level.T), 1, rtol=1e-9)
    alpha, sigma = up.level.T
    if scheduler.prediction_type == "epsilon":  # x0 = (x - sigma output) / alpha
        np.testing.assert_allclose(up.to_x0, np.stack([1 / alpha, -sigma / alpha], 1), atol=1e-9)
    assert up.init_scale == pytest.approx(1, abs=1e-4)
    assert up.mix.dtype == np.float64
    assert dj.inverted(down).mix.dtype == np.float32


def test_the_error_falls_with_the_steps():
    """On Gaussian data, where the exact network is known: by a half for twice the steps, as the
    DDIM paper's Table 2 has it between 10 and 100.
    """
    scheduler = dj.DDIMScheduler(clip_sample=False, timestep_spacing="trailing")
    spread, x = 0.5, np.full((1, 1, 1, 1), 0.7)
    errors = []
    for steps in (25, 50, 100, 200):
        down = scheduler.table(steps, dtype=np.float64)

        def network(x: np.ndarray, i: int, table: dj.Table) -> np.ndarray:
            level = scheduler.noise_schedule
            t = int(table.timestep[i])
            alpha, sigma = level.alpha[t], level.sigma[t]
            return sigma * x / (alpha**2 * spread**2 + sigma**2)

        up = dj.inverted(down, np.float64)
        x_T = propagate(up, lambda x, i, up=up: network(x, i, up), x)[-1]
        x_0 = propagate(down, lambda x, i, down=down: network(x, i, down), x_T)[-1]
        errors.append(abs(x_0 - x).item())
    ratios = np.divide(errors[:-1], errors[1:])
    assert ((ratios > 1.6) & (ratios < 2.4)).all(), errors


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (dj.DDIMScheduler().table(5, eta=0.5), "only a deterministic table.*1 and adds noise"),
        (dj.PNDMScheduler().table(5), "only a deterministic table of one register.*has 6"),
        (dj.DDIMScheduler().table(5), "set clip_sample and thresholding to False"),
        (
            dj.DDIMScheduler(prediction_type="sample", clip_sample=False).table(5),
            "row 4 does not depend on x",
        ),
    ],
    ids=["noise", "history", "clipped", "sample"],
)
def test_what_has_no_inverse(table: dj.Table, words: str):
    with pytest.raises(ValueError, match=words):
        dj.inverted(table)


@pytest.fixture
def pipe() -> Any:
    made = pipeline(dj.DDIMPipeline, num_class_embeds=3)
    made.scheduler = dj.DDIMScheduler(clip_sample=False)
    made.class_names = {0: "cat", 1: "dog", 2: "bird"}
    return made


IMAGES = np.random.default_rng(0).random((2, SIZE, SIZE, 1)).astype(np.float32)
CALL: dict[str, Any] = {"class_labels": ["dog", "cat"], "progress": False}


def test_a_pipeline_encodes(pipe: Any):
    x_T = pipe.encode(IMAGES, num_inference_steps=5, **CALL)

    def network(params: Any, x: Any, timestep: Any) -> Any:
        return pipe.unet.apply({"params": params}, x, timestep, jnp.array([1, 0]))

    table = dj.inverted(pipe.scheduler.table(5, dtype=np.float64))
    expected = dj.sample(network, pipe.params, table, 2 * IMAGES - 1)
    np.testing.assert_allclose(x_T, expected, atol=1e-5)
    with pytest.raises(ValueError, match="table goes up, from images to noise"):
        pipe(jax.random.key(0), batch_size=2, table=table, **CALL)
    again = pipe.encode(IMAGES, table=pipe.scheduler.table(5), **CALL)
    np.testing.assert_allclose(x_T, again, atol=1e-4)
    pipe.scheduler = dj.DDPMScheduler()
    with pytest.raises(ValueError, match="only a deterministic table"):
        pipe.encode(IMAGES, **CALL)


def test_a_pipeline_encodes_with_a_scheduler_that_goes_up(pipe: Any):
    """DDIM's gives the noise of its inverted table; and it makes no images."""
    call = CALL | {"num_inference_steps": 5}
    x_T = pipe.encode(IMAGES, **call)
    pipe.scheduler = dj.DDIMInverseScheduler(clip_sample=False)
    np.testing.assert_allclose(pipe.encode(IMAGES, **call), x_T, atol=1e-5)
    with pytest.raises(ValueError, match="DDIMInverseScheduler walks from images to noise"):
        pipe(jax.random.key(0), **call)
    pipe.scheduler = dj.DPMSolverMultistepInverseScheduler()
    again = pipe.encode(IMAGES, **call)
    assert np.isfinite(again).all()
    assert not np.allclose(again, x_T, atol=1e-3)


# Interpolation.


slerp = jax.jit(dj.slerp)


def test_slerp_follows_the_circle():
    a, b = np.zeros((2, 1, 2, 2, 1), np.float32)
    a[0, 0, 0], b[0, 1, 1] = 3.0, 3.0
    t = np.linspace(0, 1, 5)
    path = np.asarray(slerp(a, b, t))
    np.testing.assert_allclose(path[:, 0, 0, 0], 3 * np.cos(t * np.pi / 2), atol=1e-6)
    np.testing.assert_allclose(path[:, 1, 1, 0], 3 * np.sin(t * np.pi / 2), atol=1e-6)


def test_slerp_is_of_each_image():
    a, b = np.random.default_rng(0).standard_normal((2, 3, 4, 4, 2), np.float32)
    t = np.array([0.0, 0.3, 1.0], np.float32)
    mixed = slerp(a, b, t)
    np.testing.assert_allclose(mixed[0], a[0], atol=1e-6)
    np.testing.assert_allclose(mixed[2], b[2], atol=1e-6)
    np.testing.assert_allclose(mixed[1:2], slerp(a[1:2], b[1:2], 0.3), atol=1e-6)
    np.testing.assert_allclose(slerp(a, 2 * a, 0.5), 1.5 * a, atol=1e-5)
    np.testing.assert_allclose(slerp(0 * a, b, 0.25), 0.25 * b, atol=1e-5)
    assert np.isfinite(jax.jit(jax.grad(lambda a: slerp(a, 2 * a, 0.5).sum()))(a)).all()


@pytest.mark.parametrize(
    ("shapes", "t"),
    [(((1, 4, 4, 1), (1, 4, 4, 2)), 0.5), (((2, 4, 4, 1), (3, 4, 4, 1)), 0.5)],
    ids=["channels", "counts"],
)
@pytest.mark.usefixtures("as_users_run")
def test_slerp_refuses_other_shapes(shapes: Any, t: float):
    a, b = (np.ones(shape, np.float32) for shape in shapes)
    with pytest.raises(ValueError, match="slerp takes images of one shape"):
        dj.slerp(a, b, t)
