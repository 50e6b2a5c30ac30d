r"""The moving average of the params, which is what sampling uses.

After update k = 1, 2, ...:

    (1)  ema <- ema + (1 - d_k) (params - ema)
    (2)  constant:  d_k = decay
    (3)  warm-up:   d_k = min(decay, 1 - (1 + (k - 1) / inv_gamma)^-power)

(3) starts at 0, so the first params are forgotten at once.

References: Ho et al. 2020, arXiv:2006.11239, appendix B (decay 0.9999); (3) is the form that
diffusers' training example has.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from ddpm_jax.training.group import Group


@dataclass(frozen=True, kw_only=True)
class Ema(Group):
    """How the average decays.

    Attributes:
        decay: the largest decay, in [0, 1); the average reaches back over about 1 / (1 - decay)
            updates.
        power: exponent of the warm-up, in which the decay of update k is at most
            1 - (1 + (k - 1) / inv_gamma)^-power; for example 0.75, > 0; None: no warm-up.
        inv_gamma: the larger, the longer the warm-up, > 0.

    Raises:
        ValueError: at construction, naming every field that is refused.
    """

    decay: float = 0.9999
    power: float | None = None
    inv_gamma: float = 1.0

    def _faults(self) -> Iterator[str]:
        yield from self._shares("decay")
        yield from self._above_zero("power", "inv_gamma")

    def rate(self, update: Int[Array, ""]) -> Array:
        """1 - d_k of update k = 1, 2, ..., float32."""
        least = jnp.float32(1.0 - self.decay)
        if self.power is None:
            return least
        steps = (jnp.asarray(update, jnp.float32) - 1) / self.inv_gamma
        return jnp.maximum(least, (1 + steps) ** -self.power)

    def update(self, ema: Any, params: Any, update: Int[Array, ""]) -> Any:
        """Equation (1), in the dtype of the average."""
        rate = self.rate(update)
        return jax.tree.map(lambda e, p: e + (rate * (p - e)).astype(e.dtype), ema, params)
