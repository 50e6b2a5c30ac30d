"""The loss on images kept from training, always with the same noise at the same timesteps."""

from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from ddpm_jax.training.data import held_out_batches
from ddpm_jax.training.run.plan import Plan
from ddpm_jax.training.sharding import place_batch

KEY = 0x5EED
"""Seed of the held-out loss's draws. Any fixed number does: with the same draws whatever the run's
seed, the held-out losses of runs can be compared."""


class HeldOutLoss:
    """The mean loss of a run over its held-out images, without dropout."""

    def __init__(self, plan: Plan):
        loss, self.mesh = plan.loss, plan.mesh
        self.batches = held_out_batches(
            plan.source,
            plan.settings.data,
            batch_size=plan.settings.loop.batch_size,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )

        def total(
            params: Any, batch: dict[str, Array], key: Array
        ) -> tuple[Float[Array, ""], Float[Array, ""]]:
            drawn = loss.draw(batch, key)
            losses = loss.per_image(params, batch, drawn, train=False)["loss"]
            return (losses * batch["weight"]).sum(), batch["weight"].sum()

        self._total = jax.jit(total)

    def loss(self, params: Any) -> float:
        """For these params."""
        sums = np.zeros(2)
        for i, batch in enumerate(self.batches):
            batch.pop("index")
            key = jax.random.fold_in(jax.random.key(KEY), i)
            sums += jax.device_get(self._total(params, place_batch(batch, self.mesh), key))
        return float(sums[0] / sums[1])
