"""A run's arrays on whatever devices there are: one, several, or those of several processes.

On one device nothing is sharded, and arrays go where jax puts them.
"""

from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from ddpm_jax.training.run.settings import Loop
from ddpm_jax.training.sharding import (
    check_batch_size,
    fetch,
    gather_params,
    init_sharded,
    make_mesh,
    place_batch,
)
from ddpm_jax.training.state import TrainState, init_state
from ddpm_jax.training.step import LossFunction

if TYPE_CHECKING:
    import optax

AGREE_EVERY = 10
"""Updates between two times that processes tell each other whether to stop."""


class Devices:
    """Places state and batches.

    Args:
        loop: of the run: its fsdp, batch_size and accumulate.

    Raises:
        ValueError: numbers that do not divide.
    """

    def __init__(self, loop: Loop):
        self.mesh = None
        self.fsdp = loop.fsdp
        if jax.device_count() > 1 or loop.fsdp > 1:
            self.mesh = make_mesh(fsdp=loop.fsdp)
            check_batch_size(loop.batch_size, self.mesh, accumulate=loop.accumulate)

    def init(
        self, params: Any, optimizer: "optax.GradientTransformation", key: jax.Array
    ) -> tuple[TrainState, Any]:
        """The first state on its devices, and its shardings for the train step."""
        if self.mesh is None:  # put there, as a restored state is: both compile to one program
            return jax.device_put(init_state(params, optimizer, key), jax.devices()[0]), None
        return init_sharded(params, optimizer, key, self.mesh)

    def spread(self, loss: LossFunction, shardings: Any) -> LossFunction:
        """The loss of params as they stand."""
        return loss if self.fsdp == 1 else gather_params(loss, shardings.params)

    def place_batch(self, batch: Any, *, stacked: bool = False) -> Any:
        """This process's rows, (b, ...) or stacked (steps, b, ...), as a global batch."""
        return batch if self.mesh is None else place_batch(batch, self.mesh, stacked=stacked)

    def replicate(self, tree: Any) -> Any:
        """Whole on every device."""
        if self.mesh is None:
            return jax.device_put(tree)
        return jax.device_put(tree, NamedSharding(self.mesh, PartitionSpec()))

    def fetch(self, tree: Any) -> Any:
        """Whole on the host, in every process."""
        return fetch(tree)

    def agree(self, step: int, asked: bool) -> bool:
        """Whether any process was asked to stop; all give the same answer."""
        if jax.process_count() == 1:
            return asked
        if step % AGREE_EVERY:
            return False
        from jax.experimental import multihost_utils

        return bool(np.any(multihost_utils.process_allgather(np.array(asked))))
