"""Refinements of the predicted x0: the only nonlinearity of a sampler.

The *type* of a refinement is part of a compiled program's structure. Its numbers are leaves, so a
new limit compiles nothing. Each refinement is a small frozen pytree with `__call__(x0) -> x0`.
"""

# pyright: reportUnknownMemberType=false
# jax leaves parts of its types open.

from dataclasses import dataclass
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ddpm_jax._typing import AnyArray, Leaf


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Clip:
    """Clips x0 to [-limit, limit] (Ho et al. 2020, arXiv:2006.11239, in their sampler's code).

    Attributes:
        limit: () largest magnitude, > 0; data usually lie in [-1, 1].
    """

    limit: Leaf

    def __call__(self, x0: Float[AnyArray, "b h w c"]) -> Float[Array, "b h w c"]:
        """Clips (B, H, W, C)."""
        limit = jnp.asarray(self.limit, x0.dtype)
        return jnp.clip(x0, -limit, limit)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DynamicThreshold:
    """Clips each image at a quantile of its magnitudes, then rescales it to [-1, 1].

    With q the `ratio`-quantile of |x0| over one image, s = min(max(q, 1), max_value) and
    x0 <- clip(x0, -s, s) / s (Saharia et al. 2022, arXiv:2205.11487, section 2.3).

    Attributes:
        ratio: () quantile, in [0, 1].
        max_value: () largest s.
    """

    ratio: Leaf
    max_value: Leaf

    def __call__(self, x0: Float[AnyArray, "b h w c"]) -> Float[Array, "b h w c"]:
        """Thresholds (B, H, W, C), each image separately."""
        # The widest enabled float type, because half precision loses digits of the quantile.
        wide = x0.astype(jax.dtypes.canonicalize_dtype(jnp.float64))
        ratio, top = jnp.asarray(self.ratio, wide.dtype), jnp.asarray(self.max_value, wide.dtype)
        axes = tuple(range(1, wide.ndim))
        bound = jnp.quantile(jnp.abs(wide), ratio, axis=axes, keepdims=True)
        bound = jnp.minimum(jnp.maximum(bound, jnp.ones_like(bound)), top)
        return (jnp.clip(wide, -bound, bound) / bound).astype(x0.dtype)


Refine: TypeAlias = Clip | DynamicThreshold
