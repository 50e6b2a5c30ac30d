"""What every layer of one model has in common, as one value handed down the tree."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float
from numpy import dtype as Dtype

Activation = Callable[[Float[Array, "..."]], Float[Array, "..."]]


def mish(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Mish, x tanh(log(1 + e^x)) (Misra 2019, arXiv:1908.08681)."""
    return x * jnp.tanh(jax.nn.softplus(x))


ACTIVATIONS: dict[str, Activation] = {
    "silu": nn.silu,
    "swish": nn.silu,
    "mish": mish,
    "gelu": partial(nn.gelu, approximate=False),
    "relu": nn.relu,
}
"""Activations by their name in a config; gelu is the exact one, with erf."""


@dataclass(frozen=True, kw_only=True)
class LayerConfig:
    """The choices that all layers of a model share; a model without some kind of layer leaves its
    choices at the defaults.
    """

    groups: int | None = 32
    """Groups of every GroupNorm (mid-block attention may have its own number); None:
    `ddpm_jax.models.layers.basic.default_groups`."""
    eps: float = 1e-5
    """Added to the variance in every GroupNorm, to avoid division by 0 for constant inputs."""
    activation: Activation = nn.silu
    """Nonlinearity of the residual blocks."""
    scale_shift: bool = False
    """True: the embedding scales and shifts after the second norm. False: it is added before it."""
    head_dim: int | None = None
    """Channels of one attention head; None: one head over all channels."""
    dropout: float = 0.0
    """Dropout rate in a residual block; 0 unless the model is called to train."""
    train: bool = False
    """Training mode. On a CPU, convolutions then use another program."""
    dtype: Dtype
    """Dtype of the images inside the network."""
    param_dtype: Dtype
    """Dtype of the parameters that `init` makes."""
    remat: bool = False
    """The backward pass recomputes the inside of blocks instead of storing it."""

    @property
    def exact(self) -> "LayerConfig":
        """The same in float32 at least, for both ends of the network and for embeddings.

        They cost little, and without them an image sampled in bfloat16 is twice as far from one in
        float32: the last convolution's rounding causes most of the difference.
        """
        return replace(self, dtype=jnp.promote_types(self.dtype, jnp.float32))
