"""Image to image and inpainting with one network."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from pipelines.models import SIZE, pipeline

import ddpm_jax as dj
from ddpm_jax.guidance.known import WithKnown

KEY = jax.random.key(3)
KEYS = dj.sample_keys(KEY, 2)
IMAGES = np.random.default_rng(0).random((2, SIZE, SIZE, 1)).astype(np.float32)
X0 = 2 * IMAGES - 1
MASK = (np.arange(SIZE * SIZE).reshape(SIZE, SIZE) % 3 == 0).astype(np.float32)
DRAWN = Image.new("LA", (SIZE, SIZE), (255, 255))
DRAWN.putpixel((2, 3), (255, 0))
CALL: dict[str, Any] = {"num_inference_steps": 5, "output_type": "np", "progress": False}


@pytest.fixture(scope="module")
def pipe() -> dj.DDIMPipeline:
    return pipeline(dj.DDIMPipeline)


def test_image_to_image_is_a_table_with_a_start(pipe: dj.DDIMPipeline):
    images = pipe(KEY, image=IMAGES, strength=0.6, **CALL).images
    table, keys = pipe.scheduler.table(5, start=2), KEYS
    x_T = dj.noised(table, X0, keys)
    assert np.array_equal(images, pipe(KEY, table=table, x_T=x_T, **_without_steps()).images)
    assert not np.array_equal(images, pipe(KEY, image=IMAGES, **CALL).images)  # 0.8
    # One image for all: the same as several that are equal.
    one = pipe(KEY, image=IMAGES[0], strength=0.6, batch_size=2, **CALL).images
    assert np.array_equal(one[0], images[0])
    again = pipe(KEY, image=np.stack([IMAGES[0]] * 2), strength=0.6, **CALL).images
    assert np.array_equal(one, again)


def _without_steps() -> dict[str, Any]:
    return {name: value for name, value in CALL.items() if name != "num_inference_steps"}


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("strength", [None, 0.6])
def test_inpainting_keeps_what_is_known(pipe: dj.DDIMPipeline, eta: float, strength: float | None):
    """And is `sample` with `WithKnown`: one draw for all rows, or each row's own."""
    images = pipe(KEY, image=IMAGES, mask_image=MASK, strength=strength, eta=eta, **CALL).images
    known = MASK[..., None] == 0
    np.testing.assert_allclose(np.where(known, images, 0), np.where(known, IMAGES, 0), atol=1e-6)
    table, keys = pipe.scheduler.table(5, eta=eta, start=2 if strength else 0), KEYS
    shape = (SIZE, SIZE, 1)
    x_T = dj.noised(table, X0, keys) if strength else dj.prior(table, keys, shape)
    drawn = {"keys": keys} if eta else {"noise": dj.noise(keys, -1, shape)}
    mask = np.broadcast_to(MASK[..., None], X0.shape)
    params = {"p": pipe.params, "mask": mask, "known": X0, **drawn}

    def network(params: Any, x: Any, timestep: Any) -> Any:
        return pipe.unet.apply({"params": params["p"]}, x, timestep)

    x_0 = dj.sample(WithKnown(network), params, table, x_T, keys)
    expected = np.where(known, IMAGES, np.clip(x_0 / 2 + 0.5, 0, 1))
    np.testing.assert_allclose(images, expected, atol=1e-5)


def test_the_known_part_has_the_noise_that_a_stochastic_row_drew():
    """So no draw is used twice in a pixel: the row's own is used where the mask is 1."""
    table = dj.DDIMScheduler().table(5, eta=1.0)
    hook = WithKnown(lambda params, x, timestep: x)
    params = {"mask": jnp.asarray(np.stack([MASK[..., None]] * 2)), "known": X0, "keys": KEYS}
    x = jnp.full_like(X0, 7.0)
    assert np.array_equal(hook.replaced(params, 0, table.row(0), x), x)
    replaced = np.asarray(hook.replaced(params, 3, table.row(3), x))
    alpha, sigma = table.level[3]
    own = alpha * X0 + sigma * dj.noise(KEYS, 2, (SIZE, SIZE, 1))
    np.testing.assert_allclose(replaced, np.where(MASK[..., None] == 0, own, 7.0), rtol=1e-5)


def test_x_T_in_place_of_noise(pipe: dj.DDIMPipeline):
    """The run begins with it, and the known part is noised with it: so nothing is drawn."""
    x_T = np.random.default_rng(1).standard_normal(X0.shape).astype(np.float32)
    for options in ({"strength": 0.6}, {"mask_image": MASK}, {"mask_image": MASK, "strength": 0.6}):
        call = {**CALL, "image": IMAGES, "x_T": x_T, **options}
        one, other = pipe(KEY, **call).images, pipe(jax.random.key(9), **call).images
        assert np.array_equal(one, other)


def test_pil_images_are_scaled_to_the_network(pipe: dj.DDIMPipeline):
    image, mask = (Image.new("RGB", (20, 30), color) for color in ("gray", "black"))
    images = pipe(KEY, image=image, mask_image=mask, **CALL).images
    assert images.shape == (1, SIZE, SIZE, 1)
    np.testing.assert_allclose(images, 128 / 255, atol=1e-6)


def test_other_sizes_of_arrays(pipe: dj.DDIMPipeline):
    images = pipe(KEY, image=np.full((4, 6, 1), 0.5), **CALL).images
    assert images.shape == (1, 4, 6, 1)


@pytest.mark.usefixtures("as_users_run")
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"strength": 0.5}, "strength needs image"),
        ({"mask_image": MASK}, "mask_image needs image"),
        ({"image": IMAGES, "strength": 1.5}, "strength must be above 0 and at most 1, got 1.5"),
        ({"image": IMAGES, "strength": 0.1}, "strength 0.1 of 5 steps leaves none"),
        ({"image": IMAGES + 1}, "image must lie in .0, 1."),
        ({"image": IMAGES[..., [0, 0, 0]]}, "image must have 1 channels"),
        ({"image": IMAGES, "mask_image": MASK[:4]}, "mask_image must have the size of image"),
        ({"image": IMAGES, "mask_image": DRAWN}, "mask_image has transparent pixels"),
        ({"image": IMAGES, "mask_image": np.ones((3, SIZE, SIZE))}, "got 3 masks for 2 images"),
        ({"image": IMAGES, "batch_size": 3}, "image must be one, or 3 .*; got 2"),
        ({"image": IMAGES, "x_T": np.zeros((2, 4, 4, 1))}, "x_T must have the size of image"),
    ],
)
def test_refusals(pipe: dj.DDIMPipeline, options: dict[str, Any], words: str):
    with pytest.raises(ValueError, match=words):
        pipe(KEY, **options, **CALL)


def test_a_table_beside_a_strength(pipe: dj.DDIMPipeline):
    call = {"table": pipe.scheduler.table(4), "image": IMAGES, **_without_steps()}
    with pytest.raises(ValueError, match="table= replaces strength"):
        pipe(KEY, strength=0.5, **call)
    with pytest.raises(ValueError, match="with table= pass strength"):
        pipe(KEY, mask_image=MASK, **call)


def test_repaint():
    """Its jumps are the scheduler's, and the known part stays."""
    pipe = pipeline(dj.RePaintPipeline)
    call = {**CALL, "image": IMAGES, "mask_image": MASK, "jump_length": 2, "jump_n_sample": 2}
    images = pipe(KEY, **call).images
    table = pipe.scheduler.table(5, jump_length=2, jump_n_sample=2)
    given = {"image": IMAGES, "mask_image": MASK, "strength": 1.0, **_without_steps()}
    assert np.array_equal(images, pipe(KEY, table=table, **given).images)
    known = MASK[..., None] == 0
    np.testing.assert_allclose(np.where(known, images - IMAGES, 0), 0, atol=1e-6)
    with pytest.raises(ValueError, match="RePaint needs image and mask_image: pass mask_image"):
        pipe(KEY, image=IMAGES)
    pipe.scheduler = dj.DDIMScheduler()
    with pytest.raises(ValueError, match="has no option jump_length"):
        pipe(KEY, **call)
