"""Images to the inputs of networks that look at pictures: sizes, crops, and what is refused.

`tests/parity/test_vision_parity.py` compares the numbers with transformers'.
"""

import numpy as np
import pytest

from ddpm_jax import pixels


@pytest.mark.parametrize("shape", [(8, 8), (8, 20), (21, 8), (3, 5)])
def test_sizes(shape: tuple[int, int]):
    images = np.random.default_rng(0).integers(0, 256, (2, *shape, 3)).astype(np.uint8)
    for make in (pixels.for_clip, pixels.for_depth):
        made = make(images, 8)
        assert made.shape == (2, 8, 8, 3)
        assert made.dtype == np.float32
        np.testing.assert_array_equal(make(images[1:], 8), made[1:])


def test_clip_sees_the_center_and_depth_sees_all():
    """A red image whose left third is blue, which the crop leaves out."""
    images = np.zeros((1, 10, 30, 3), np.uint8)
    images[:, :, 10:, 0] = images[:, :, :10, 2] = 255
    clip, depth = pixels.for_clip(images, 10), pixels.for_depth(images, 30)
    red = (np.array([1, 0, 0]) - pixels.CLIP_MEAN) / pixels.CLIP_STD
    np.testing.assert_allclose(clip, np.broadcast_to(red, clip.shape), rtol=1e-6)
    np.testing.assert_array_equal(depth[0, 15, [3, 25]], [[-1, -1, 1], [1, -1, -1]])


@pytest.mark.usefixtures("as_users_run")
def test_other_images_are_refused():
    for images, got in (
        (np.zeros((1, 8, 8, 3), np.float32), r"float32 of shape \(1, 8, 8, 3\)"),
        (np.zeros((8, 8, 3), np.uint8), r"uint8 of shape \(8, 8, 3\)"),
        (np.zeros((1, 8, 8, 1), np.uint8), r"uint8 of shape \(1, 8, 8, 1\)"),
        (np.zeros((1, 0, 8, 3), np.uint8), r"uint8 of shape \(1, 0, 8, 3\)"),
    ):
        with pytest.raises(ValueError, match="images must be uint8 .*; got " + got):
            pixels.for_clip(images, 8)
