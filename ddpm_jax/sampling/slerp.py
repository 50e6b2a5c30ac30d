r"""Between two samples of noise.

    (1)  theta = arccos(a . b / (|a| |b|))
    (2)  x = (sin((1 - t) theta) / sin theta) a + (sin(t theta) / sin theta) b

Noise of many dimensions lies close to a sphere, and so does x; on the straight line between a and b
x would be too short. References: Shoemake 1985; Song et al. 2021, arXiv:2010.02502, eq. 67.
"""

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from ddpm_jax._typing import AnyArray
from ddpm_jax.sampling.forward import check_images

NEAR = 1 - 1e-6
"""The cosine from which on two images count as parallel."""


def slerp(
    a: Float[AnyArray, "#b h w c"], b: Float[AnyArray, "#b h w c"], t: ArrayLike
) -> Float[Array, "..."]:
    """Spherical interpolation, equation (2), image by image.

    Args:
        a: (B, H, W, C), or one image for all of t.
        b: as `a`.
        t: 0 gives a, 1 gives b: a number, or one for each image.

    Returns:
        (B, H, W, C) in the dtype of `a`. Where a and b are parallel, or one is 0, it is linear
        interpolation.

    Raises:
        ValueError: shapes do not match, or the images are not floats.

    >>> import jax, jax.numpy as jnp, ddpm_jax as dj
    >>> a, b = jax.random.normal(jax.random.key(0), (2, 1, 8, 8, 1))
    >>> dj.slerp(a, b, jnp.linspace(0, 1, 11)).shape
    (11, 8, 8, 1)
    """
    check_images(a)
    check_images(b)
    share = jnp.atleast_1d(jnp.asarray(t, a.dtype))
    count = max(len(a), len(b), len(share))
    if a.shape[1:] != b.shape[1:] or share.ndim != 1 or {len(a), len(b), len(share)} - {1, count}:
        raise ValueError(
            "slerp takes images of one shape and one t, or one for each image; got shapes "
            f"{a.shape}, {b.shape} and {jnp.shape(t)}"
        )
    a, b = (jnp.broadcast_to(one, (count, *one.shape[1:])) for one in (a, b))
    dot, square, other = ((one * two).sum(axis=(1, 2, 3)) for one, two in ((a, b), (a, a), (b, b)))
    # At this limit (2) is t to float32's precision, and the derivative is finite.
    lengths = jnp.sqrt(square * other)
    cosine = jnp.where(lengths > 0, dot / jnp.where(lengths > 0, lengths, 1), 1)
    theta = jnp.arccos(jnp.clip(cosine, -NEAR, NEAR))
    of_a, of_b = (jnp.sin(part * theta) / jnp.sin(theta) for part in (1 - share, share))
    return of_a[:, None, None, None] * a + of_b[:, None, None, None] * b
