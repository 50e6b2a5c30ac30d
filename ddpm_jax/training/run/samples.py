"""Grids of samples while a model trains, always from the same keys, so that they compare."""

from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from ddpm_jax.hub.files import replacing
from ddpm_jax.images import make_grid
from ddpm_jax.pipelines.generate import generate, with_conditions
from ddpm_jax.pipelines.inputs import Inputs
from ddpm_jax.sampling.keys import prior, sample_keys
from ddpm_jax.schedulers import BY_NAME
from ddpm_jax.training.run.plan import Plan
from ddpm_jax.training.sharding import replicate


class Sampler:
    """Draws one grid of a run from whatever params it is given.

    The default is DDPM: its fresh noise corrects the errors of a briefly trained network, which
    DDIM carries from the first steps to the image.
    """

    def __init__(self, plan: Plan):
        self.model, loop = plan.model, plan.settings.loop
        place = partial(replicate, mesh=plan.mesh)
        # "trailing" begins at the last timestep, the others a little before it.
        kind = BY_NAME[loop.sample_scheduler]
        self.table = kind.trailing(plan.scheduler.config).table(loop.sample_steps)
        keys = sample_keys(jax.random.key(loop.seed), loop.sample_num)
        classes = self.model.num_class_embeds
        each_class = np.arange(loop.sample_num, dtype=np.int32) % (classes or 1)
        self.inputs = Inputs(
            count=loop.sample_num,
            x_T=place(prior(self.table, keys, plan.source.shape)),
            keys=place(keys),
            conditions={} if classes is None else {"context": place(each_class)},
            place=place,
        )

    def grid(self, params: Any) -> Image.Image:
        """The grid, as people look at it."""
        denoise, params = with_conditions(self.model, params, self.inputs.conditions)
        images = generate(denoise, params, self.table, self.inputs)
        return make_grid(np.nan_to_num(np.asarray(images)))


def save_image(image: Image.Image, path: Path) -> None:
    """Writes a PNG; a reader sees the whole file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        image.save(partial, format="PNG")
