"""Guides on normally distributed data, whose posterior is known, and their equations."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pipelines.models import pipeline

import ddpm_jax as dj
from ddpm_jax.guidance import measurements
from ddpm_jax.pipelines.unconditional import DDIMPipeline

SCHEDULER = dj.DDIMScheduler(clip_sample=False, timestep_spacing="trailing")
RATIO = np.log(SCHEDULER.noise_schedule.noise_ratio).astype(np.float32)
MEAN, STD = 0.3, 0.5
NOISE = 0.2
SHAPE = (4, 4, 1)
MASK = np.zeros(SHAPE, np.float32)
MASK[:, :2] = 1
KERNEL = np.array([[0.0, 0.1, 0.0], [0.2, 0.4, 0.1], [0.0, 0.2, 0.0]], np.float32)
MEASURES = {
    "masked": dj.Masked(MASK),
    "downsampled": dj.Downsampled(2),
    "blurred": dj.Blurred(KERNEL),
}


def level(timestep: Any) -> tuple[Any, Any]:
    ratio = jnp.exp(jnp.interp(timestep, jnp.arange(1000.0), RATIO))
    alpha = (1 + ratio**2) ** -0.5
    return alpha, alpha * ratio


def normal(params: Any, x: Any, timestep: Any) -> Any:
    """Exact for x0 ~ N(mean, STD^2)."""
    alpha, sigma = level(timestep)
    return sigma * (x - alpha * params["mean"]) / (alpha**2 * STD**2 + sigma**2)


PARAMS = {"mean": jnp.float32(MEAN)}
exact = jax.jit(normal)
explained = jax.jit(measurements.explained)
transposed = jax.jit(measurements.transposed, static_argnums=(2, 3))


@jax.jit
def matrix(measure: Any) -> jax.Array:
    """A, one row a number of the measurement."""
    basis = jnp.eye(16).reshape(16, *SHAPE)
    return jax.vmap(lambda one: measure(one[None])[0])(basis).reshape(16, -1).T


@partial(jax.jit, static_argnums=0)
def at_row(denoise: Any, params: Any, row: Any, x: Any) -> jax.Array:
    return denoise.at_row(params, row, x)


def posterior(measure: Any, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a = np.asarray(matrix(measure))
    gain = STD**2 * a.T @ np.linalg.pinv(STD**2 * a @ a.T + NOISE**2 * np.eye(len(a)))
    mean = MEAN + gain @ (y.ravel() - a @ np.full(16, MEAN))
    return mean, STD**2 * (np.eye(16) - gain @ a)


def measured(measure: Any) -> np.ndarray:
    random = np.random.default_rng(0)
    x0 = MEAN + STD * random.normal(size=(1, *SHAPE)).astype(np.float32)
    clean = np.asarray(measure(jnp.asarray(x0)))
    return clean + NOISE * random.normal(size=clean.shape).astype(np.float32)


def run(guide: dj.Guide | None, keys: Any, steps: int, eta: float = 0.0, **given: Any) -> Any:
    """The images of keys, or of so many."""
    denoise, params = normal, PARAMS
    if guide is not None:
        denoise, params = guide.around(denoise, params)
    table = given.get("table") or SCHEDULER.table(steps, eta=eta)
    keys = dj.sample_keys(jax.random.key(1), keys) if isinstance(keys, int) else keys
    return dj.sample(denoise, params, table, dj.prior(table, keys, SHAPE), keys)


@pytest.mark.parametrize("name", MEASURES)
def test_pigdm_draws_from_the_posterior_of_normal_data(name: str) -> None:
    measure = MEASURES[name]
    y = measured(measure)
    guide = dj.pigdm(measure, y, NOISE, data_std=STD)
    found = np.asarray(run(guide, 4000, 100)).reshape(-1, 16)
    mean, covariance = posterior(measure, y)
    np.testing.assert_allclose(found.mean(0), mean, atol=0.03)
    np.testing.assert_allclose(np.cov(found.T), covariance, atol=0.025)


@pytest.mark.parametrize("name", MEASURES)
def test_measurements_are_linear_and_solved(name: str) -> None:
    """A^T, and A^T (gain A A^T + ridge)^-1, against matrices in NumPy."""
    measure, random = MEASURES[name], np.random.default_rng(1)
    a = np.asarray(matrix(measure))
    images = jnp.zeros((3, *SHAPE))
    values = random.normal(size=np.shape(measure(images))).astype(np.float32)
    flat = values.reshape(3, -1)
    back = transposed(measure, values, images.shape, images.dtype)
    np.testing.assert_allclose(np.asarray(back).reshape(3, 16), flat @ a, atol=1e-5)
    found = explained(measure, values, images, 0.7, 0.2)
    expected = np.linalg.solve(0.7 * a @ a.T + 0.2 * np.eye(len(a)), flat.T).T @ a
    np.testing.assert_allclose(np.asarray(found).reshape(3, -1), expected, atol=2e-4)


def test_known_measurements() -> None:
    image = np.arange(16.0, dtype=np.float32).reshape(1, *SHAPE)
    small = np.asarray(dj.Downsampled(2)(jnp.asarray(image)))
    np.testing.assert_array_equal(small.squeeze(), [[2.5, 4.5], [10.5, 12.5]])
    point = np.zeros((1, *SHAPE), np.float32)
    point[0, 0, 3] = 1  # the edge continues on the other side
    blurred = np.asarray(dj.Blurred(KERNEL)(jnp.asarray(point))).squeeze()
    np.testing.assert_allclose(blurred[0], [0.1, 0, 0.2, 0.4], atol=1e-6)
    np.testing.assert_allclose(blurred[:, 3], [0.4, 0.2, 0, 0.1], atol=1e-6)


def test_diffpir_takes_the_least_misfit() -> None:
    """The gradient of equation (1) vanishes at the x0 that a row reads."""
    measure = MEASURES["blurred"]
    y = jnp.asarray(measured(measure))
    denoise, params = dj.diffpir(measure, y, NOISE, weight=3.0).around(normal, PARAMS)
    row = SCHEDULER.table(10).row(6)
    alpha, sigma = row.level
    x = jax.random.normal(jax.random.key(2), (2, *SHAPE))
    x0 = dj.predict_x0(row, (x,), exact(PARAMS, x, row.timestep))

    @jax.jit
    @jax.grad
    def slope(z: Any) -> Any:
        fit = jnp.sum((y - measure(z)) ** 2) / (2 * NOISE**2)
        return fit + 3.0 * jnp.sum((z - x0) ** 2) / (2 * (sigma / alpha) ** 2)

    best = dj.predict_x0(row, (x,), at_row(denoise, params, row, x))
    assert float(jnp.abs(slope(best)).max()) < 1e-3 * float(jnp.abs(slope(x0)).max())


def test_diffpir_comes_near_the_posterior_mean() -> None:
    measure = MEASURES["masked"]
    y = measured(measure)
    mean, _ = posterior(measure, y)
    found = np.asarray(run(dj.diffpir(measure, y, NOISE), 1000, 100, eta=1.0)).reshape(-1, 16)
    known = MASK.ravel() > 0
    np.testing.assert_allclose(found.mean(0)[known], mean[known], atol=0.08)
    np.testing.assert_allclose(found.mean(0)[~known], MEAN, atol=0.06)
    exact = np.asarray(run(dj.diffpir(measure, y), 4, 10)).reshape(-1, 16)
    np.testing.assert_allclose(
        exact[:, known], np.broadcast_to(y.ravel()[known], (4, 8)), atol=1e-5
    )


def test_dps_moves_each_step_down_the_misfit() -> None:
    """Equation (1), by hand, for a measurement that is not linear."""

    def measure(images: Any) -> Any:
        return jnp.abs(images).sum(axis=(2, 3))

    y = jnp.full((1, 4), 2.0)
    denoise, params = dj.dps(measure, y, scale=0.4).around(normal, PARAMS)
    row = SCHEDULER.table(10, eta=0.5).row(3)
    x, drawn = jax.random.normal(jax.random.key(3), (2, 3, *SHAPE))

    @jax.jit
    @jax.grad
    def downwards(x: Any) -> Any:
        x0 = dj.predict_x0(row, (x,), normal(PARAMS, x, row.timestep))
        return jnp.sqrt(jnp.square(y - measure(x0)).sum(axis=1)).sum()

    (plain,) = dj.step(row, (x,), exact(PARAMS, x, row.timestep), drawn)
    (moved,) = dj.step(row, (x,), at_row(denoise, params, row, x), drawn)
    np.testing.assert_allclose(moved, plain - 0.4 * downwards(x), atol=2e-6)


def test_dps_finds_images_that_fit() -> None:
    measure = MEASURES["downsampled"]
    y = measured(measure)
    off = [
        float(jnp.square(measure(run(guide, 64, 200, eta=1.0)) - y).mean())
        for guide in (None, dj.dps(measure, y, scale=0.3))
    ]
    assert off[1] < 0.1 * off[0], off


def test_dps_refuses_tables_with_a_history_or_a_refined_x0() -> None:
    guide = dj.dps(dj.Downsampled(2), np.zeros((1, 2, 2, 1)))
    for table in (dj.DPMSolverMultistepScheduler().table(4), dj.DDIMScheduler().table(4)):
        with pytest.raises(ValueError, match="one register"):
            run(guide, 1, 4, table=table)


def mixture(params: Any, x: Any, timestep: Any) -> Any:
    """Exact for x0 at plus or minus MEAN in all pixels, with STD around them."""
    alpha, sigma = level(timestep)
    variance = alpha**2 * STD**2 + sigma**2
    side = jnp.tanh((alpha * params["mean"] * x / variance).sum(axis=(1, 2, 3), keepdims=True))
    return sigma * (x - side * alpha * params["mean"]) / variance


def sides(params: Any, x: Any, timestep: Any) -> Any:
    """The logits of the two sides."""
    alpha, sigma = level(timestep)
    light = (alpha * params * x / (alpha**2 * STD**2 + sigma**2)).sum(axis=(1, 2, 3))
    return jnp.stack([-light, light], axis=1)


def test_classifier_guidance_gives_the_class() -> None:
    """With the exact classifier at scale 1 the guided network is that of one side."""
    x = jax.random.normal(jax.random.key(4), (5, *SHAPE))
    for side, sign in ((0, -1), (1, 1)):
        guide = dj.classifier_guide(sides, jnp.float32(MEAN), side)
        denoise, params = guide.around(mixture, PARAMS)
        for row in SCHEDULER.table(6):
            expected = exact({"mean": sign * PARAMS["mean"]}, x, row.timestep)
            np.testing.assert_allclose(at_row(denoise, params, row, x), expected, atol=2e-5)
    each = dj.classifier_guide(sides, jnp.float32(MEAN), np.array([0, 1, 0, 1, 1]))
    denoise, params = each.around(mixture, PARAMS)
    found = at_row(denoise, params, row, x)
    means = MEAN * np.array([-1, 1, -1, 1, 1], np.float32)[:, None, None, None]
    np.testing.assert_allclose(found, exact({"mean": means}, x, row.timestep), atol=2e-5)


def test_classifier_guidance_refuses_a_refined_x0() -> None:
    guide = dj.classifier_guide(sides, jnp.float32(MEAN), 1)
    with pytest.raises(ValueError, match="clip_sample=False"):
        run(guide, 1, 4, table=dj.DDIMScheduler().table(4))


def test_guides_nest() -> None:
    """A measurement, and a class."""
    measure = MEASURES["masked"]
    y = measured(measure)
    inner = dj.classifier_guide(sides, jnp.float32(MEAN), 1)
    outer = dj.diffpir(measure, y)
    x = jax.random.normal(jax.random.key(4), (2, *SHAPE))
    row = SCHEDULER.table(6).row(2)
    both, params = outer.around(*inner.around(mixture, PARAMS))
    alone, own = outer.around(normal, PARAMS)
    found, expected = at_row(both, params, row, x), at_row(alone, own, row, x)
    np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize("make", [dj.pigdm, dj.diffpir])
def test_an_image_does_not_depend_on_its_batch(make: Any) -> None:
    measure = dj.Masked(np.stack([MASK, 1 - MASK, MASK]))
    y = np.asarray(measure(jnp.full((3, *SHAPE), 0.2)))
    keys = dj.sample_keys(jax.random.key(1), 3)
    whole = run(make(measure, y, NOISE), keys, 5)
    alone = run(make(dj.Masked((1 - MASK)[None]), y[1:2], NOISE), keys[1:2], 5)
    np.testing.assert_allclose(alone[0], whole[1], atol=1e-5)


def test_other_values_compile_nothing(count_compilations: Any) -> None:
    measure = MEASURES["downsampled"]
    y = measured(measure)
    run(dj.pigdm(measure, y, 0.1), 2, 4)
    with count_compilations() as compiled:
        run(dj.pigdm(dj.Downsampled(2), y + 1, 0.3, data_std=0.7, scale=0.5), 2, 4)
    assert compiled.count == 0


def test_pipelines_take_a_guide() -> None:
    pipe = pipeline(DDIMPipeline)
    mask = np.zeros((8, 8, 1), np.float32)
    mask[:4] = 1
    guide = dj.diffpir(dj.Masked(mask), mask[None] * 0.5)
    given = {"num_inference_steps": 4, "output_type": "np", "progress": False}
    images = pipe(jax.random.key(0), batch_size=2, guide=guide, **given).images
    np.testing.assert_allclose(images[:, :4], 0.75, atol=1e-4)
    with pytest.raises(ValueError, match="guide and mask_image"):
        pipe(jax.random.key(0), guide=guide, image=mask, mask_image=mask, **given)


def test_learned_variances_stay() -> None:
    def both(params: Any, x: Any, timestep: Any) -> Any:
        return jnp.concatenate([normal(params, x, timestep), x], axis=-1)

    x = jax.random.normal(jax.random.key(4), (2, *SHAPE))
    row = SCHEDULER.table(6).row(2)
    y = np.zeros((1, 2, 2, 1), np.float32)
    for guide in (dj.pigdm(dj.Downsampled(2), y), dj.dps(dj.Downsampled(2), y)):
        denoise, params = guide.around(both, PARAMS)
        output = at_row(denoise, params, row, x)
        np.testing.assert_array_equal(output[..., 1:], x)
        assert float(jnp.abs(output[..., :1] - exact(PARAMS, x, row.timestep)).max()) > 1e-3


@pytest.mark.usefixtures("as_users_run")
def test_wrong_arguments_are_refused() -> None:
    y, measure = np.zeros((1, 2, 2, 1)), dj.Downsampled(2)
    for make, given, words in (
        (lambda **k: dj.pigdm(measure, y, **k), {"std": -1.0}, "std"),
        (lambda **k: dj.pigdm(measure, y, **k), {"data_std": 0.0}, "data_std"),
        (lambda **k: dj.pigdm(measure, 0.5, **k), {}, "y must"),
        (lambda **k: dj.pigdm(3, y, **k), {}, "measure"),
        (lambda **k: dj.diffpir(measure, y, **k), {"weight": 0.0}, "weight"),
        (lambda **k: dj.dps(measure, y, **k), {"scale": float("nan")}, "scale"),
        (lambda **k: dj.pigdm(measure, y * np.nan, **k), {}, "y must be finite"),
        (lambda **k: dj.classifier_guide(sides, None, **k), {"labels": 0.5}, "labels"),
        (lambda **k: dj.classifier_guide(sides, None, **k), {"labels": -1}, "labels"),
        (lambda **k: dj.classifier_guide(sides, None, **k), {"labels": np.array(["1"])}, "labels"),
        (lambda **k: dj.Downsampled(**k), {"factor": 0}, "factor"),
    ):
        with pytest.raises(ValueError, match=words):
            make(**given)
    with pytest.raises(ValueError, match="divide"):
        dj.Downsampled(3)(jnp.zeros((1, 4, 4, 1)))
    with pytest.raises(ValueError, match="odd"):
        dj.Blurred(np.ones((2, 2)))(jnp.zeros((1, 4, 4, 1)))
    with pytest.raises(ValueError, match="two odd"):
        dj.Blurred(np.ones(3))(jnp.zeros((1, 4, 4, 1)))
    for shape in ((4, 4), (4, 4, 3), (3, 4, 4, 1), (3, 4, 1)):
        with pytest.raises(ValueError, match="mask must be"):
            dj.Masked(np.ones(shape))(jnp.zeros((2, 4, 4, 3)))


def test_what_does_not_fit_a_run_is_refused() -> None:
    half = dj.Downsampled(2)
    for make in (dj.pigdm, dj.diffpir, dj.dps):
        for shape in ((3, 3, 1), (2, 2, 3), (4, 1)):
            with pytest.raises(ValueError, match="y must be of shape"):
                run(make(half, np.zeros((1, *shape))), 2, 4)
        with pytest.raises(ValueError, match="y must be of shape"):
            run(make(half, np.zeros((3, 2, 2, 1))), 2, 4)
    for make in (dj.pigdm, dj.diffpir):
        with pytest.raises(ValueError, match="measure must be linear"):
            run(make(jnp.tanh, np.zeros((1, *SHAPE))), 2, 4)
    with pytest.raises(ValueError, match="labels must be 1 or 2"):
        run(dj.classifier_guide(sides, jnp.float32(MEAN), [0, 1, 1]), 2, 4)
    with pytest.raises(ValueError, match="classifier must give logits"):
        run(dj.classifier_guide(mixture, PARAMS, 1), 2, 4)


def test_no_image_of_a_class_that_is_not_there() -> None:
    images = run(dj.classifier_guide(sides, jnp.float32(MEAN), [1, 7]), 2, 4)
    assert np.isfinite(images[0]).all()
    assert np.isnan(images[1]).all()
