"""Attention by cuDNN on a GPU of NVIDIA: scores and softmax in float32, and no scores in memory.

    softmax(q k^T / sqrt(head_dim)) v           for each head

A head_dim that is no multiple of 8 is padded with zeros, which changes no score.

Reference: Dao 2023, arXiv:2307.08691.
"""

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jaxtyping import Array

from ddpm_jax.models.layers import target

WIDEST = 128
"""head_dim up to which every supported GPU has a program; Hopper and later have some up to 256."""
MULTIPLE = 8
"""cuDNN has head_dims that are multiples of it."""
AMPERE = 8.0
"""Compute capability from which cuDNN has these programs."""


def applies(q: Array, k: Array, v: Array) -> bool:
    """Whether cuDNN has a program for this attention; axes are those of `attend`."""
    half = q.dtype in (jnp.bfloat16, jnp.float16) and q.dtype == k.dtype == v.dtype
    return half and q.shape[-1] <= WIDEST and has_programs()


def has_programs() -> bool:
    """Whether the default device has them. With several GPUs it is False: cuDNN's call refuses a
    context that is on the mesh in another way than the images. In an export it is False: the GPU
    that runs it is not known, and jax does not promise that a later one has this call.
    """
    if target.is_exported():
        return False
    capability = getattr(jax.local_devices()[0], "compute_capability", None)
    try:
        recent = float(capability or 0) >= AMPERE
    except ValueError:  # AMD's are names, such as gfx942
        recent = False
    return recent and jax.default_backend() == "gpu" and jax.device_count() == 1


@custom_vmap
def attend(q: Array, k: Array, v: Array) -> Array:
    """The attention of (batch, sequence, heads, head_dim)."""
    width = q.shape[-1]
    edges = ((0, 0), (0, 0), (0, 0), (0, -width % MULTIPLE))
    q, k, v = (jnp.pad(x, edges) for x in (q, k, v))
    out = jax.nn.dot_product_attention(q, k, v, scale=width**-0.5, implementation="cudnn")
    return out[..., :width]


@attend.def_vmap
def _attend_batched(size: int, batched: list[bool], *args: Array) -> tuple[Array, bool]:
    """Maps are one larger batch: jax maps cuDNN's call only where q, k and v are all mapped."""
    whole = [
        x if mapped else jnp.broadcast_to(x, (size, *x.shape))
        for x, mapped in zip(args, batched, strict=True)
    ]
    out = attend(*(x.reshape(-1, *x.shape[2:]) for x in whole))
    return out.reshape(size, -1, *out.shape[1:]), True
