"""Grids of samples while a model trains, always from the same keys, so that they compare."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from ddpm_jax.images import make_grid, to_pil
from ddpm_jax.models import UNet2DModel
from ddpm_jax.sampling import segments
from ddpm_jax.sampling.keys import prior, sample_keys
from ddpm_jax.schedulers import DDIMScheduler, DDPMScheduler


class Sampler:
    """Draws one grid from whatever params it is given, with DDIM.

    Args:
        model: the network.
        scheduler: that it is trained under.
        num: pictures in the grid.
        steps: of DDIM.
        seed: of the keys.
        shape: (H, W, C) of a picture.
        place: puts arrays where the params are.
    """

    def __init__(
        self,
        model: UNet2DModel,
        scheduler: DDPMScheduler,
        *,
        num: int,
        steps: int,
        seed: int,
        shape: tuple[int, int, int],
        place: Callable[[Any], Any] = jax.device_put,
    ):
        self.network = segments.Network(model)
        # "trailing" begins at the last timestep, the others a little before it.
        self.table = DDIMScheduler.from_config(scheduler.config, timestep_spacing="trailing").table(
            steps
        )
        self.place = place
        self.keys = place(sample_keys(jax.random.key(seed), num))
        self.x_T = place(prior(self.table, sample_keys(jax.random.key(seed), num), shape))
        classes = model.num_class_embeds
        labels = None if classes is None else np.arange(num, dtype=np.int32) % classes
        self.labels = {} if labels is None else {"labels": place(labels)}

    def grid(self, params: Any) -> Image.Image:
        """The grid, as people look at it."""
        run = segments.run(
            self.network,
            {"unet": params, **self.labels},
            self.table,
            self.x_T,
            self.keys,
            place=self.place,
        )
        *_, last = run
        unit = np.clip(np.asarray(last.registers[0]) / 2 + 0.5, 0, 1)
        return make_grid(to_pil(np.nan_to_num(unit)))


def save_picture(picture: Image.Image, path: Path) -> None:
    """Writes a PNG; a reader sees the whole file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".partial")
    picture.save(beside, format="PNG")
    beside.replace(path)
