"""The inputs of the network other than the image: timestep and class.

    (1)  positional   t f_i, f_i = 10000^(-i / (half - freq_shift)), i = 0..half-1
                   sines and cosines; an odd width ends in a zero
    (2)  fourier      2 pi w_i log(t), w_i ~ N(0, 16^2) fixed; sines, then cosines
    (3)  learned      one row of a table for each whole t

All are float32: in bfloat16 the timesteps 999 and 1000 are equal. freq_shift is 1 in DDPM and 0 in
improved DDPM.

Reference: Ho et al. 2020, arXiv:2006.11239; (2) Song et al. 2021, arXiv:2011.13456.
"""

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float, Num
from numpy import dtype as Dtype

from ddpm_jax.models.layers.basic import make_linear
from ddpm_jax.models.layers.config import Activation, LayerConfig

FOURIER_SCALE = 16.0


def sinusoid(
    timestep: Num[Array, " b"], width: int, flip_sin_to_cos: bool, freq_shift: float
) -> Float[Array, "b d"]:
    """Equation (1)."""
    half = width // 2
    # In float32 and this order, as checkpoints were trained: an ulp of f_i is 6e-5 in angle at 999.
    exponent = np.float32(-np.log(10000)) * np.arange(half, dtype=np.float32)
    frequencies = np.exp(exponent / np.float32(half - freq_shift))
    angle = timestep.astype(jnp.float32)[:, None] * frequencies[None]
    parts = [jnp.sin(angle), jnp.cos(angle)]
    if flip_sin_to_cos:
        parts.reverse()
    return jnp.pad(jnp.concatenate(parts, axis=-1), ((0, 0), (0, width % 2)))


class Fourier(nn.Module):
    """Equation (2); the weight is drawn once and gets no gradient."""

    width: int
    param_dtype: Dtype

    @nn.compact
    def __call__(self, timestep: Num[Array, " b"]) -> Float[Array, "b d"]:
        """Sines, then cosines."""
        draw = nn.initializers.normal(FOURIER_SCALE)
        weight = self.param("weight", draw, (self.width,), self.param_dtype).astype(jnp.float32)
        log_t = jnp.log(timestep.astype(jnp.float32))
        angle = log_t[:, None] * lax.stop_gradient(weight)[None] * 2 * np.pi
        return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)


class Embedding(nn.Module):
    """The row of a learned table at the nearest integer index; NaN outside the table."""

    rows: int
    width: int
    param_dtype: Dtype

    @nn.compact
    def __call__(self, index: Num[Array, " b"]) -> Float[Array, "b d"]:
        """Looks the rows up."""
        shape = (self.rows, self.width)
        table = self.param("embedding", nn.initializers.normal(1.0), shape, self.param_dtype)
        index = jnp.round(index).astype(jnp.int32)
        index = jnp.where(index < 0, self.rows, index)  # a negative index would count from the end
        return table.at[index].get(mode="fill", fill_value=jnp.nan)


class EmbeddingMLP(nn.Module):
    """Linear, activation, linear."""

    config: LayerConfig
    width: int
    activation: Activation = nn.silu
    """`UNet2DModel` has SiLU here for every activation of the model."""

    @nn.compact
    def __call__(self, x: Float[Array, "b d"]) -> Float[Array, "b e"]:
        """Maps the last axis."""
        x = self.activation(make_linear(self.config, self.width, "linear_1")(x))
        return make_linear(self.config, self.width, "linear_2")(x)
