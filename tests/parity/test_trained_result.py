"""What a training run leaves, in diffusers' own pipelines."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from training.runs import SMALL, with_loop

import ddpm_jax as dj
from ddpm_jax.images import to_uint8
from ddpm_jax.training.run.finetune import base_settings, load_base
from ddpm_jax.training.run.plan import make_plan
from ddpm_jax.training.run.run import train

DIGITS = Path(__file__).parents[1] / "data" / "digits-ddpm"
KEYS = dj.sample_keys(jax.random.key(0), 8)

EQUAL = 0.999
"""Share of pixels that must be the same byte; both sides are float32 and sum in another order."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two updates of a model that diffusers trained."""
    model, diffusion = base_settings(str(DIGITS), None)
    assert diffusion is not None
    settings = replace(SMALL, model=model, diffusion=diffusion)
    settings = with_loop(
        settings, steps=2, batch_size=4, save_every=2, sample_every=0, eval_every=2
    )
    out = tmp_path_factory.mktemp("trained") / "run"
    train(make_plan(settings, out, load_base(str(DIGITS))), progress=False)
    return out


def test_diffusers_samples_the_result(trained: Path, monkeypatch: pytest.MonkeyPatch):
    """Its DDIM pipeline, from our x_T."""
    import diffusers
    import torch
    from diffusers.pipelines.ddim import pipeline_ddim

    pipe = dj.DDIMPipeline.from_pretrained(trained)
    x_T = np.asarray(dj.prior(pipe.scheduler.table(1), KEYS, (8, 8, 1)))

    def ours_first(shape: tuple[int, ...], **_: Any) -> Any:
        assert shape == (8, 1, 8, 8)
        return torch.from_numpy(x_T.transpose(0, 3, 1, 2).copy())

    monkeypatch.setattr(pipeline_ddim, "randn_tensor", ours_first)
    theirs = diffusers.DDIMPipeline.from_pretrained(trained)
    theirs.set_progress_bar_config(disable=True)
    images = theirs(batch_size=8, num_inference_steps=20, output_type="np").images
    ours = pipe(KEYS, x_T=x_T, num_inference_steps=20, output_type="np", progress=False).images
    difference = np.abs(to_uint8(ours).astype(int) - (images * 255).round().astype(int))
    assert np.ptp(images) > 0.8  # there is something to compare
    assert difference.max() <= 1
    assert (difference == 0).mean() >= EQUAL


def test_diffusers_reads_both_sets_of_weights(trained: Path):
    import diffusers

    loaded = diffusers.DiffusionPipeline.from_pretrained(trained)
    assert type(loaded) is diffusers.DDPMPipeline
    raw = diffusers.UNet2DModel.from_pretrained(trained, subfolder="unet", variant="non_ema")
    average, last = loaded.unet.state_dict(), raw.state_dict()
    for weights, variant in ((average, None), (last, "non_ema")):
        _, params = dj.UNet2DModel.from_pretrained(trained, variant=variant)
        kernel = weights["conv_in.weight"].numpy().transpose(2, 3, 1, 0)
        assert np.array_equal(kernel, params["conv_in"]["kernel"])
    assert not average["conv_in.weight"].equal(last["conv_in.weight"])
