"""What is trained: presets of `ddpm-jax train`, and the pictures that their input reads."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.models import Configuration
from ddpm_jax.training.data import Data
from ddpm_jax.training.run.presets import CIFAR10, TINY
from ddpm_jax.training.run.settings import Settings

PICTURES = 1000
"""Files in a made folder of pictures."""


@dataclass(frozen=True)
class Trained:
    """A preset with its pictures.

    Attributes:
        settings: the preset's, but for where its pictures are.
        shape: of a picture; (32, 32, 3) are PNG files in a made folder, (8, 8, 1) the digits.
    """

    settings: Settings
    shape: tuple[int, int, int]


MODELS = {
    "digits": Trained(TINY, (8, 8, 1)),
    "pictures": Trained(TINY, (32, 32, 3)),
    "cifar10": Trained(CIFAR10, (32, 32, 3)),
    "tiny": Trained(  # for the fast mode
        replace(
            TINY,
            model=replace(
                TINY.model,
                down_block_types=("DownBlock2D",),
                up_block_types=("UpBlock2D",),
                block_out_channels=(8,),
                layers_per_block=1,
                norm_num_groups=4,
            ),
        ),
        (8, 8, 1),
    ),
}
"""By name; "pictures" is the network of the digits, on larger pictures from files."""

USUAL = {
    "cpu": {"training": ("digits",), "input": ("digits", "pictures")},
    "gpu": {"training": ("cifar10",), "input": ("cifar10",)},
}
PRECISION = {"cpu": "float32", "gpu": "bfloat16"}


def network_config(model: str) -> dict[str, Any]:
    """The config of a `UNet2DModel`, ours or diffusers'."""
    trained = MODELS[model]
    return trained.settings.model.config(trained.shape, None, trained.settings.diffusion)


def configurations(
    device: str,
    parts: tuple[str, ...],
    models: tuple[str, ...] | None = None,
    batch: int | None = None,
    precision: str | None = None,
) -> Iterator[Configuration]:
    """The run's configurations; what is None is the device's or the preset's usual choice."""
    for part in parts:
        for model in models or USUAL[device][part]:
            yield Configuration(
                part=part,
                model=model,
                batch=batch or MODELS[model].settings.loop.batch_size,
                precision=precision or PRECISION[device],
                device=device,
            )


def furnish(configuration: Configuration, folder: Path) -> None:
    """Writes `settings.json` into the folder, and pictures where it needs some."""
    settings, data = MODELS[configuration.model].settings, Data()
    if MODELS[configuration.model].shape == (32, 32, 3):
        pictures = folder / "pictures"
        if not pictures.exists():
            _draw(pictures)
        data = Data(name=str(pictures), flip=settings.data.flip)
    # Nothing is written at intervals, and noise is no loss to watch.
    loop = replace(settings.loop, sample_every=0, divergence=0.0)
    loop = replace(loop, batch_size=configuration.batch, dtype=configuration.precision)
    replace(settings, data=data, loop=loop).save(folder / "settings.json")


def _draw(folder: Path) -> None:
    """PNG files of noise, which are the largest and slowest to read."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(PICTURES):
        pixels = rng.integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:04d}.png")
