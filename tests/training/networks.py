"""Networks that answer what a test wants, in the place of a UNet."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

import ddpm_jax as dj

BLOCKS: dict[str, Any] = {
    "block_out_channels": (8,),
    "down_block_types": ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",),
    "norm_num_groups": 4,
}
"""What makes a UNet's config valid; none of these blocks is ever built."""


class Given(dj.UNet2DModel):
    """output + gain x + slope timestep [+ label], the first three out of the params.

    So a gradient with respect to `output` is the loss's own; while training, noise is added.
    """

    @nn.compact
    def __call__(
        self, x: Any, timestep: Any, class_labels: Any = None, train: bool = False
    ) -> jax.Array:
        params = self.variables["params"]
        output = (
            jnp.asarray(params["output"]) + params.get("slope", 0.0) * timestep[:, None, None, None]
        )
        if "gain" in params:
            output = output + params["gain"] * x
        if class_labels is not None:
            output = output + class_labels[:, None, None, None]
        if train:
            output = output + jax.random.normal(self.make_rng("dropout"), output.shape)
        return output


class Guessing(dj.UNet2DModel):
    """Guesses x0 = tanh(scale x), and says so in the way that a scheduler's config asks for."""

    scheduler: dj.DDPMScheduler = dj.DDPMScheduler()

    @nn.compact
    def __call__(
        self, x: Any, timestep: Any, class_labels: Any = None, train: bool = False
    ) -> jax.Array:
        schedule = self.scheduler.noise_schedule
        alpha, sigma = (
            jnp.asarray(column, jnp.float32)[timestep][:, None, None, None]
            for column in (schedule.alpha, schedule.sigma)
        )
        x0 = jnp.tanh(self.variables["params"]["scale"] * x)
        eps = (x - alpha * x0) / sigma
        answers = {"sample": x0, "epsilon": eps, "v_prediction": alpha * eps - sigma * x0}
        return answers[self.scheduler.prediction_type]
