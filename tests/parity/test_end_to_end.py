"""The whole way against diffusers: the digits checkpoint, from the same x_T and noise."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import ddpm_jax as dj
from ddpm_jax.images import to_uint8

DIGITS = Path(__file__).parents[1] / "data" / "digits-ddpm"
"""A DDPM that PyTorch diffusers trained, float32."""
COUNT = 32
KEYS = dj.sample_keys(jax.random.key(0), COUNT)

EQUAL = 0.999
"""Share of pixels that must be the same byte. Both sides are float32 and sum in another order, so a
value that lies on the border of two bytes may fall to either side."""

EQUAL_FLOAT32_TABLE = 0.995
"""The same against DDPM with diffusers' own float32 table, whose rounding moves a image by 3e-5
after 1000 steps: so far it also is from a run of diffusers all in float64, from which we are 5e-6
off. 1.1e-3 of a byte on average lets about one pixel in a thousand fall to the other side."""


@pytest.fixture(autouse=True)
def one_torch_thread() -> Iterator[None]:
    """Images of 8 x 8 gain nothing by a second thread, and lose much where cores are busy."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def x_T() -> np.ndarray:
    return np.asarray(dj.prior(dj.DDPMScheduler().table(1), KEYS, (8, 8, 1)))


def torch_images(steps: int, *schedulers: Any) -> list[np.ndarray]:
    """diffusers' pixels, (B, H, W, C) for each scheduler, by its pipelines' loop from our x_T.

    The schedulers share their timesteps, so that the network is called for all at once.
    """
    import diffusers
    import torch

    unet = diffusers.UNet2DModel.from_pretrained(DIGITS, subfolder="unet")
    for scheduler in schedulers:
        scheduler.set_timesteps(steps)
    x = [torch.from_numpy(x_T().transpose(0, 3, 1, 2).copy())] * len(schedulers)
    with torch.no_grad():
        for t in schedulers[0].timesteps:
            outputs = unet(torch.cat(x), t).sample.chunk(len(x))
            x = [
                scheduler.step(output, t, before).prev_sample
                for scheduler, output, before in zip(schedulers, outputs, x, strict=True)
            ]
    images = [(one / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy() for one in x]
    return [(one * 255).round().astype(np.uint8) for one in images]


def with_exact_table(scheduler: Any) -> Any:
    """A scheduler of diffusers whose table is float64; what it computes from it is float32."""
    import torch

    config = scheduler.config
    betas = torch.linspace(config.beta_start, config.beta_end, 1000, dtype=torch.float64)
    scheduler.betas, scheduler.alphas = betas, 1 - betas
    scheduler.alphas_cumprod = torch.cumprod(scheduler.alphas, 0)
    scheduler.one = torch.ones((), dtype=torch.float64)
    return scheduler


def compare(ours: np.ndarray, theirs: np.ndarray, equal: float = EQUAL) -> None:
    difference = np.abs(to_uint8(ours).astype(int) - theirs.astype(int))
    share = (difference == 0).mean()
    print(f"{share:.3%} of {difference.size} pixels equal, at most {difference.max()} apart")
    assert np.ptp(theirs) > 200  # there is something to compare
    assert difference.max() <= 1
    assert share >= equal


@pytest.mark.parametrize("method", ["DDIM", "PNDM"])
def test_50_steps(method: str):
    import diffusers

    scheduler = getattr(diffusers, f"{method}Scheduler").from_pretrained(DIGITS / "scheduler")
    (theirs,) = torch_images(50, scheduler)
    pipe = getattr(dj, f"{method}Pipeline").from_pretrained(DIGITS)
    ours = pipe(KEYS, x_T=x_T(), output_type="np", progress=False).images
    compare(ours, theirs)


def test_ddpm_1000_steps_with_the_same_noise(monkeypatch: pytest.MonkeyPatch):
    import diffusers
    import torch
    from diffusers.schedulers import scheduling_ddpm

    draw = jax.jit(lambda row: dj.noise(KEYS, row, (8, 8, 1)))

    def our_noise() -> Iterator[Any]:
        for row in range(999):  # the last row adds none
            drawn = torch.from_numpy(np.asarray(draw(row)).transpose(0, 3, 1, 2).copy())
            yield drawn  # to the scheduler as it is,
            yield drawn  # and to that with an exact table

    noise = our_noise()
    monkeypatch.setattr(scheduling_ddpm, "randn_tensor", lambda shape, **_: next(noise))
    load = diffusers.DDPMScheduler.from_pretrained
    as_is, exact = torch_images(
        1000, load(DIGITS / "scheduler"), with_exact_table(load(DIGITS / "scheduler"))
    )
    assert next(noise, None) is None
    pipe = dj.DDPMPipeline.from_pretrained(DIGITS)
    ours = pipe(KEYS, x_T=x_T(), output_type="np", progress=False).images
    compare(ours, exact)
    compare(ours, as_is, EQUAL_FLOAT32_TABLE)


def test_diffusers_loads_what_we_save(tmp_path: Any):
    import diffusers

    pipe = dj.DDIMPipeline.from_pretrained(DIGITS)
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
    bundled = dj.DDPMPipeline.from_pretrained(DIGITS).params
    assert jax.tree.all(jax.tree.map(np.array_equal, pipe.params, bundled))
