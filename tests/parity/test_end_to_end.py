"""The whole way against diffusers: the digits checkpoint, from the same x_T and noise."""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest

import ddpm_jax as dj
from ddpm_jax import hub
from ddpm_jax.images import to_uint8

DIGITS = hub.BUNDLED / "digits"
COUNT = 32
KEYS = dj.sample_keys(jax.random.key(0), COUNT)

EQUAL = 0.999
"""Share of pixels that must be the same byte. Both sides are float32 and sum in another order, so a
value that lies on the border of two bytes may fall to either side."""


@pytest.fixture(autouse=True)
def one_torch_thread() -> Iterator[None]:
    """Pictures of 8 x 8 gain nothing by a second thread, and lose much where cores are busy."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def x_T() -> np.ndarray:
    return np.asarray(dj.prior(dj.DDPMScheduler().table(1), KEYS, (8, 8, 1)))


def torch_images(scheduler: Any, steps: int) -> np.ndarray:
    """diffusers' pixels, (B, H, W, C), by the loop of its pipelines from our x_T."""
    import diffusers
    import torch

    unet = diffusers.UNet2DModel.from_pretrained(DIGITS, subfolder="unet")
    scheduler.set_timesteps(steps)
    x = torch.from_numpy(x_T().transpose(0, 3, 1, 2).copy())
    with torch.no_grad():
        for t in scheduler.timesteps:
            x = scheduler.step(unet(x, t).sample, t, x).prev_sample
    images = (x / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy()
    return (images * 255).round().astype(np.uint8)


def compare(ours: np.ndarray, theirs: np.ndarray, record: Any) -> None:
    difference = np.abs(to_uint8(ours).astype(int) - theirs.astype(int))
    record("pixels equal", float((difference == 0).mean()))
    record("largest difference", int(difference.max()))
    print(f"{(difference == 0).mean():.4%} of {difference.size} equal, at most {difference.max()}")
    assert np.ptp(theirs) > 200  # there is something to compare
    assert difference.max() <= 1
    assert (difference == 0).mean() >= EQUAL


def test_ddim_50_steps(record_property: Any):
    import diffusers

    theirs = torch_images(diffusers.DDIMScheduler.from_pretrained(DIGITS / "scheduler"), 50)
    pipe = dj.DDIMPipeline.from_pretrained(DIGITS)
    ours = pipe(KEYS, x_T=x_T(), output_type="np", progress=False).images
    compare(ours, theirs, record_property)


def test_pndm_50_steps(record_property: Any):
    import diffusers

    theirs = torch_images(diffusers.PNDMScheduler.from_pretrained(DIGITS / "scheduler"), 50)
    pipe = dj.PNDMPipeline.from_pretrained(DIGITS)
    ours = pipe(KEYS, x_T=x_T(), output_type="np", progress=False).images
    compare(ours, theirs, record_property)


def test_ddpm_1000_steps_with_the_same_noise(record_property: Any, monkeypatch: pytest.MonkeyPatch):
    import diffusers
    import torch
    from diffusers.schedulers import scheduling_ddpm

    draw = jax.jit(lambda row: dj.noise(KEYS, row, (8, 8, 1)))

    def our_noise() -> Iterator[Any]:
        for row in range(999):  # the last row adds none
            yield torch.from_numpy(np.asarray(draw(row)).transpose(0, 3, 1, 2).copy())

    noise = our_noise()
    monkeypatch.setattr(scheduling_ddpm, "randn_tensor", lambda shape, **_: next(noise))
    theirs = torch_images(diffusers.DDPMScheduler.from_pretrained(DIGITS / "scheduler"), 1000)
    assert next(noise, None) is None
    pipe = dj.DDPMPipeline.from_pretrained(DIGITS)
    ours = pipe(KEYS, x_T=x_T(), output_type="np", progress=False).images
    compare(ours, theirs, record_property)


def test_diffusers_loads_what_we_save(tmp_path: Any):
    import diffusers

    pipe = dj.DDIMPipeline.from_pretrained("digits")
    pipe.scheduler = dj.DDIMScheduler(set_alpha_to_one=False)
    pipe.save_pretrained(tmp_path / "saved")
    loaded = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "saved")
    assert type(loaded) is diffusers.DDIMPipeline
    assert loaded.scheduler.config.set_alpha_to_one is False
    original = diffusers.UNet2DModel.from_pretrained(DIGITS, subfolder="unet").state_dict()
    saved = loaded.unet.state_dict()
    assert set(saved) == set(original)
    assert all(saved[name].equal(original[name]) for name in original)


def test_we_load_what_diffusers_saves(tmp_path: Any):
    import diffusers

    theirs = diffusers.DDPMPipeline.from_pretrained(DIGITS)
    theirs.scheduler = diffusers.PNDMScheduler.from_config(theirs.scheduler.config)
    diffusers.PNDMPipeline(**theirs.components).save_pretrained(tmp_path / "saved")
    pipe = dj.DiffusionPipeline.from_pretrained(tmp_path / "saved")
    assert type(pipe) is dj.PNDMPipeline
    assert type(pipe.scheduler) is dj.PNDMScheduler
    bundled = dj.DDPMPipeline.from_pretrained("digits").params
    assert jax.tree.all(jax.tree.map(np.array_equal, pipe.params, bundled))
