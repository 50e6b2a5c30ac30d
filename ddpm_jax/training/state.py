"""The state of a training run, as a plain pytree.

A state and a batch are all that the next step needs: the draws of step k come from fold_in(key, k),
not from earlier draws.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from ddpm_jax._typing import Leaf
from ddpm_jax.sampling.keys import typed_keys

if TYPE_CHECKING:
    import optax


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True, eq=False)
class TrainState:
    """A run after `step` updates.

    Attributes:
        step: () int32, the number of updates so far.
        params: those that the loss is taken of, float32.
        ema: their moving average, a tree of the same shapes.
        opt_state: the optimiser's own.
        key: () of the run, never consumed: step k draws from fold_in(key, k).
    """

    step: Leaf
    params: Any
    ema: Any
    opt_state: Any
    key: Leaf


def init_state(
    params: Any, optimizer: "optax.GradientTransformation", key: jax.Array
) -> TrainState:
    """The state before the first update; the average starts at the params.

    Args:
        params: of the model; they are copied, for a train step donates its state, and in float32,
            whatever the model computes in: updates are too small for half precision.
        optimizer: any optax transformation.
        key: one key, typed or legacy.

    >>> import jax, ddpm_jax as dj
    >>> from ddpm_jax.training import Optimizer, init_state
    >>> model, params = dj.UNet2DModel.from_pretrained("digits")
    >>> state = init_state(params, Optimizer().make(steps=1000), jax.random.key(0))
    >>> int(state.step)
    0
    """
    own, ema = (jax.tree.map(_float32_copy, params) for _ in range(2))
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=own,
        ema=ema,
        opt_state=optimizer.init(own),
        key=jnp.array(typed_keys(key)),
    )


def _float32_copy(leaf: Any) -> jax.Array:
    return jnp.array(leaf, jnp.float32)
