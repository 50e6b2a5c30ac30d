"""Attention: of a sequence to itself or to a context, and over the pixels of an image.

    (1)  q = linear(x),   k, v = linear(context)            x itself, where there is no context
    (2)  h = softmax(q k^T / sqrt(head_dim)) v              for each head
    (3)  y = linear(h)

and over an image x, whose pixels are the sequence, as a residual block

    (4)  y = (x + attention(norm(x), context)) / output_scale

heads = channels // head_dim, unless it is given: where head_dim does not divide the channels, q, k
and v have the smaller width heads * head_dim.

Reference: Vaswani et al. 2017, arXiv:1706.03762; (4) Ho et al. 2020, appendix B, arXiv:2006.11239;
context as in Rombach et al. 2022, arXiv:2112.10752.
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Bool, Float

from ddpm_jax.models.layers import cudnn
from ddpm_jax.models.layers.basic import make_linear, make_norm
from ddpm_jax.models.layers.config import LayerConfig
from ddpm_jax.models.layers.plain import Image

Context = Float[Array, "b m d"]
"""A sequence that each image attends to, such as the features of a text."""
NAMES = ("to_q", "to_k", "to_v", "to_out.0")
MAX_SCORES = 2**24
"""Scores of an image in memory at once: 64 MB, which is 2048 x 1024 tokens in 8 heads."""
Sequence = Float[Array, "b n c"]
Mask = Bool[Array, "#b #k #n #m"]
"""(batch, heads, queries, keys), or 1 on any axis: False where a query must not attend to a key."""


def attend(
    q: Float[Array, "b n k d"],
    k: Float[Array, "b m k d"],
    v: Float[Array, "b m k d"],
    mask: Mask | None = None,
) -> Float[Array, "b n k d"]:
    """Equation (2); axes are (batch, sequence, heads, head_dim).

    On a GPU, `ddpm_jax.models.layers.cudnn` computes it where it can. Its derivatives, and what it
    cannot compute, are XLA's: long sequences are taken some queries at a time, so that no more than
    `MAX_SCORES` scores of an image are in memory. The mask must leave at least one key for each
    query. Otherwise the result is NaN.
    """
    if mask is None and cudnn.applies(q, k, v):
        return _by_cudnn(q, k, v)
    return _by_xla(q, k, v, mask)


@jax.custom_jvp
def _by_cudnn(q: Array, k: Array, v: Array) -> Array:
    # The default backend is a GPU, but this program may be compiled for the CPU beside it.
    return lax.platform_dependent(q, k, v, cuda=cudnn.attend, default=_by_xla)


@_by_cudnn.defjvp
def _by_cudnn_jvp(
    primals: tuple[Array, Array, Array], tangents: tuple[Array, Array, Array]
) -> tuple[Array, Array]:
    """XLA's: cuDNN's call has no forward mode, and no second derivative."""
    return jax.jvp(_by_xla, primals, tangents)


def _by_xla(q: Array, k: Array, v: Array, mask: Array | None = None) -> Array:
    b, n, heads, width = q.shape
    fit = max(1, MAX_SCORES // (k.shape[1] * heads))
    if mask is not None or n <= fit:
        return _attend(q, k, v, mask)
    parts = -(-n // fit)
    size = -(-n // parts)
    padded = jnp.pad(q, ((0, 0), (0, parts * size - n), (0, 0), (0, 0)))
    queries = jnp.moveaxis(padded.reshape(b, parts, size, heads, width), 1, 0)
    # The backward pass computes the scores again: stored, they would be as large as unparted.
    found = lax.map(jax.checkpoint(lambda part: _attend(part, k, v)), queries)
    return jnp.moveaxis(found, 0, 1).reshape(b, parts * size, heads, width)[:, :n]


@partial(jax.jit, inline=True)  # traced once a shape
def _attend(q: Array, k: Array, v: Array, mask: Array | None = None) -> Array:
    # Scores and softmax are in float32: bfloat16 rounds scores of 100 to steps of 0.5, and float16
    # overflows where activations are large, as in Stable Diffusion 2.1.
    exact = jnp.promote_types(q.dtype, jnp.float32)
    scores = jnp.einsum("bqhd,bkhd->bhqk", q, k, preferred_element_type=exact)
    scores = scores * q.shape[-1] ** -0.5
    if mask is not None:
        scores = jnp.where(mask, scores, -jnp.inf)
    weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
    return jnp.einsum("bhqk,bkhd->bqhd", weights, v)


class Attention(nn.Module):
    """Equations (1) to (3), without a norm or a residual."""

    config: LayerConfig
    heads: int | None = None
    """None: as many as `config.head_dim` says; otherwise each has an equal part of the channels."""
    use_bias: bool = True
    """Whether (1) has a bias; (3) has one always."""
    names: tuple[str, str, str, str] = NAMES
    """Of the linear maps in the params."""

    @nn.compact
    def __call__(
        self,
        x: Sequence,
        context: Context | None = None,
        mask: Mask | None = None,
    ) -> Sequence:
        """Maps sequences; without a context each attends to itself. `mask` is that of `attend`."""
        return _attention(
            self.config, x, context, mask, self.heads, self.use_bias, names=self.names
        )


class SpatialAttention(nn.Module):
    """Equation (4)."""

    config: LayerConfig
    groups: int | None
    """Of the norm; None: the model's; 0: no norm."""
    output_scale: float = 1.0

    @nn.compact
    def __call__(self, x: Image, context: Context | None = None) -> Image:
        """Maps images; without a context the pixels of each attend to each other."""
        b, h, w, c = x.shape
        normed = x
        if self.groups != 0:
            normed = make_norm(self.config, "group_norm", groups=self.groups)(x)
        mixed = _attention(self.config, normed.reshape(b, h * w, c), context)
        return (x + mixed.reshape(x.shape)) / self.output_scale


def _attention(
    config: LayerConfig,
    x: Sequence,
    context: Context | None,
    mask: Mask | None = None,
    heads: int | None = None,
    use_bias: bool = True,
    names: tuple[str, str, str, str] = NAMES,
) -> Sequence:
    """Equations (1) to (3).

    The linear maps belong to the module in whose `__call__` this happens: torch has them and the
    norm of (4) in one module, and the params have its names.
    """
    channels = x.shape[-1]
    head_dim = channels // heads if heads else config.head_dim or channels
    heads = heads or channels // head_dim
    context = x if context is None else context.astype(x.dtype)

    def project(sequence: Float[Array, "b s e"], name: str) -> Float[Array, "b s k d"]:
        y = make_linear(config, heads * head_dim, name, use_bias)(sequence)
        return y.reshape(*y.shape[:2], heads, head_dim)

    q, k, v = map(project, (x, context, context), names[:3])
    h = attend(q, k, v, mask).reshape(*x.shape[:2], heads * head_dim)
    return make_linear(config, channels, names[3])(h)
