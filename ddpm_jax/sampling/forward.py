r"""The forward process on the device, for training and for custom loops.

    (1)  x   = alpha x0 + sigma eps
    (2)  v   = alpha eps - sigma x0                      (alpha^2 + sigma^2 = 1)
    (3)  eps = sigma x + alpha v,   x0 = alpha x - sigma v

All computation is at least float32: in half precision 1 - alpha^2 is 0 near t = 0.
References: Ho et al. 2020, arXiv:2006.11239, eq. 4; Salimans and Ho 2022, arXiv:2202.00512.
"""

from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from ddpm_jax._typing import AnyArray

Coefficient: TypeAlias = ArrayLike
"""alpha or sigma: () or (B,)."""
Images: TypeAlias = Float[AnyArray, "b h w c"]


def _per_image(coefficient: Coefficient, like: AnyArray) -> Array:
    """A () or (B,) coefficient, reshaped to multiply (B, ...), at least float32."""
    wide = _canonical(like) if jnp.finfo(like.dtype).bits >= 32 else jnp.float32
    values = jnp.asarray(coefficient, wide)
    if values.shape not in ((), like.shape[:1]):
        raise ValueError(
            f"{len(like)} images need 1 or {len(like)} coefficients, got shape {values.shape}"
        )
    return values.reshape(values.shape + (1,) * (like.ndim - 1)) if values.ndim else values


def _combine(a: Coefficient, first: AnyArray, b: Coefficient, second: AnyArray) -> Array:
    """The sum a first + b second, computed at least in float32, in the dtype of `first`."""
    check_images(first)
    check_images(second)
    if first.shape != second.shape:
        raise ValueError(f"the two images differ in shape: {first.shape} and {second.shape}")
    first_coef, second_coef = _per_image(a, first), _per_image(b, first)
    wide = first_coef.dtype
    sum_ = first_coef * first.astype(wide) + second_coef * second.astype(wide)
    return sum_.astype(_canonical(first))


def _canonical(image: AnyArray) -> Any:
    """The image's dtype in jax: float64 only if x64 is enabled."""
    return jax.dtypes.canonicalize_dtype(image.dtype)


def check_images(image: AnyArray) -> None:
    """Refuses images that are not float arrays: in integers every level rounds to 0.

    Raises:
        ValueError: the message names the dtype or type.
    """
    if not (hasattr(image, "dtype") and jnp.issubdtype(image.dtype, jnp.floating)):
        got = getattr(image, "dtype", type(image).__name__)
        raise ValueError(f"images must be arrays of floats, usually in [-1, 1]; got {got}")


def add_noise(
    x0: Images, noise: Images, alpha: Coefficient, sigma: Coefficient
) -> Float[Array, "b h w c"]:
    """The noised x, equation (1); alpha and sigma are () or (B,)."""
    return _combine(alpha, x0, sigma, noise)


def velocity(
    x0: Images, noise: Images, alpha: Coefficient, sigma: Coefficient
) -> Float[Array, "b h w c"]:
    """The target v, equation (2); alpha and sigma are () or (B,) with alpha^2 + sigma^2 = 1."""
    return _combine(-jnp.asarray(sigma), x0, alpha, noise)


def x0_from_eps(
    x: Images, eps: Images, alpha: Coefficient, sigma: Coefficient
) -> Float[Array, "b h w c"]:
    """Clean images by equation (1); needs alpha > 0."""
    return _combine(1 / jnp.asarray(alpha), x, -jnp.asarray(sigma) / jnp.asarray(alpha), eps)


def eps_from_x0(
    x: Images, x0: Images, alpha: Coefficient, sigma: Coefficient
) -> Float[Array, "b h w c"]:
    """Noise by equation (1); needs sigma > 0."""
    return _combine(1 / jnp.asarray(sigma), x, -jnp.asarray(alpha) / jnp.asarray(sigma), x0)


def x0_from_v(
    x: Images, v: Images, alpha: Coefficient, sigma: Coefficient
) -> Float[Array, "b h w c"]:
    """Clean images by equation (3); needs alpha^2 + sigma^2 = 1."""
    return _combine(alpha, x, -jnp.asarray(sigma), v)


def eps_from_v(
    x: Images, v: Images, alpha: Coefficient, sigma: Coefficient
) -> Float[Array, "b h w c"]:
    """Noise by equation (3); needs alpha^2 + sigma^2 = 1."""
    return _combine(sigma, x, alpha, v)
