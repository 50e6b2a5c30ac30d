"""Ways from uint8 images to a network's input, against recorded outputs of others."""

import jax
import numpy as np
import pytest
from goldens import metric_goldens as cases
from PIL import Image

from ddpm_jax.evaluation.resizing import RESIZINGS, bicubic

CLOSE = 4e-6
"""Of a range of 2: some roundings of float32."""


def resized(name: str, pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    resizing = RESIZINGS[name]
    return np.asarray(resizing.on_device(jax.numpy.asarray(resizing.on_host(pixels, size)), size))


@pytest.mark.parametrize(("old", "new"), cases.RESIZED, ids=str)
@pytest.mark.parametrize("name", ["pytorch-fid", "torch-fidelity"])
def test_linear_resizing(name: str, old: tuple[int, int], new: tuple[int, int]) -> None:
    with np.load(cases.FILE) as file:
        wanted = file[f"{name} {old} {new}"]
    np.testing.assert_allclose(
        resized(name, cases.pixels(old), new), wanted, atol=CLOSE, rtol=0, strict=True
    )


@pytest.mark.parametrize(("old", "new"), cases.RESIZED, ids=str)
def test_bicubic_resizing_is_pillows(old: tuple[int, int], new: tuple[int, int]) -> None:
    """One channel at a time, in float32, clipped and not rounded."""
    pixels = cases.pixels(old)
    found = resized("clean-fid", pixels, new)
    for image, plain in zip(found, pixels, strict=True):
        for c in range(3):
            plane = Image.fromarray(plain[..., c].astype(np.float32))
            large = plane.resize(new[::-1], Image.Resampling.BICUBIC)
            wanted = (np.asarray(large).clip(0, 255) - 128) / 128
            np.testing.assert_allclose(image[..., c], wanted, atol=1e-6)


def test_bicubic_resizing_overshoots_and_is_clipped() -> None:
    edge = np.zeros((1, 4, 4, 1), np.uint8)
    edge[:, :, 2:] = 255
    large = bicubic(edge[0], (9, 9))
    assert (large.min(), large.max()) == (0, 255)
    assert len(np.unique(large % 1)) > 2  # not rounded


@pytest.mark.parametrize("name", RESIZINGS)
def test_flat_images_stay_flat(name: str) -> None:
    """And black, grey and white have the range that the network was trained with."""
    size = (8, 8) if name == "none" else (13, 5)
    for value, wanted in {0: -1.0, 128: 0.0, 255: 1.0}.items():
        found = resized(name, np.full((1, 8, 8, 3), value, np.uint8), size)
        if name == "none":
            wanted = value / 255
        assert found.shape == (1, *size, 3)
        assert np.ptp(found) < 1e-6
        assert found.mean() == pytest.approx(wanted, abs=0.01)


def test_ways_differ() -> None:
    """By more than rounding: what one network says of them cannot be compared."""
    pixels = cases.pixels((20, 14))
    found = [
        resized(name, pixels, (9, 11)) for name in ("pytorch-fid", "torch-fidelity", "clean-fid")
    ]
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert np.abs(found[i] - found[j]).mean() > 0.05
