"""Grids of samples while a model trains, always from the same keys, so that they compare."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Int32
from PIL import Image

from ddpm_jax.hub.files import replacing
from ddpm_jax.images import make_grid
from ddpm_jax.models import UNet2DModel
from ddpm_jax.pipelines.generate import generate, with_conditions
from ddpm_jax.pipelines.inputs import Inputs
from ddpm_jax.sampling.keys import prior, sample_keys
from ddpm_jax.schedulers import DDPMScheduler, Scheduler


class Sampler:
    """Draws one grid from whatever params it is given.

    The default of a run is DDPM: its fresh noise corrects the errors of a briefly trained network,
    which DDIM carries from the first steps to the image.

    Args:
        model: the network.
        scheduler: that it is trained under.
        num: images in the grid.
        kind: the class of the scheduler that draws.
        steps: of that scheduler.
        seed: of the keys.
        shape: (H, W, C) of an image.
        place: puts arrays where the params are.
    """

    def __init__(
        self,
        model: UNet2DModel,
        scheduler: DDPMScheduler,
        *,
        kind: type[Scheduler],
        num: int,
        steps: int,
        seed: int,
        shape: tuple[int, int, int],
        place: Callable[[Any], Any] = jax.device_put,
    ):
        self.model = model
        # "trailing" begins at the last timestep, the others a little before it.
        self.table = kind.trailing(scheduler.config).table(steps)
        keys = sample_keys(jax.random.key(seed), num)
        classes = model.num_class_embeds
        self.inputs = Inputs(
            count=num,
            x_T=place(prior(self.table, keys, shape)),
            keys=place(keys),
            conditions={} if classes is None else {"context": place(_each_class(num, classes))},
            place=place,
        )

    def grid(self, params: Any) -> Image.Image:
        """The grid, as people look at it."""
        denoise, params = with_conditions(self.model, params, self.inputs.conditions)
        images = generate(denoise, params, self.table, self.inputs)
        return make_grid(np.nan_to_num(np.asarray(images)))


def _each_class(num: int, classes: int) -> Int32[np.ndarray, "b"]:
    return np.arange(num, dtype=np.int32) % classes


def save_image(image: Image.Image, path: Path) -> None:
    """Writes a PNG; a reader sees the whole file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        image.save(partial, format="PNG")
