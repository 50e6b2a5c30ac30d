"""Linear measurements y = A x0 + std n of images, and what guides need of them.

A measurement is a function of images (B, H, W, C), linear in them, and a pytree: `Masked`,
`Downsampled`, `Blurred`, or any function f as `jax.tree_util.Partial(f)`. Its transpose is
derived, and systems are solved by conjugate gradients, for each image by itself.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ddpm_jax._typing import AnyArray, is_number, is_whole

Measure: TypeAlias = Callable[[Float[Array, "b h w c"]], Float[Array, "b ..."]]

ITERATIONS, TOLERANCE = 50, 1e-5
"""Of the conjugate gradients; `Masked` and `Downsampled` need two iterations."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Masked:
    """Some of the pixels: inpainting.

    Attributes:
        mask: (H, W, 1) or (B, H, W, 1), 1 where pixels are known, 0 elsewhere.
    """

    mask: Float[AnyArray, "..."]

    def __call__(self, images: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """The images, 0 where they are not known."""
        mask, shape = jnp.asarray(self.mask, images.dtype), images.shape
        fits = mask.ndim in (3, 4) and mask.shape[-3:] == (*shape[1:3], 1)
        if not fits or (mask.ndim == 4 and mask.shape[0] not in (1, shape[0])):
            raise ValueError(
                f"mask must be {(*shape[1:3], 1)} or {(*shape[:3], 1)} for images of {shape}, "
                f"got {mask.shape}"
            )
        return mask.reshape((1,) * (4 - mask.ndim) + mask.shape) * images


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Downsampled:
    """Means of square blocks of pixels: super-resolution.

    Attributes:
        factor: side of a block in pixels; it divides height and width.
    """

    factor: int = field(metadata={"static": True})

    def __post_init__(self) -> None:
        if not is_whole(self.factor) or self.factor < 1:
            raise ValueError(f"factor must be a whole number of at least 1, got {self.factor!r}")

    def __call__(self, images: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
        """The means."""
        batch, height, width, channels = images.shape
        k = self.factor
        if height % k or width % k:
            raise ValueError(f"factor {k} does not divide images of {height}x{width}")
        return images.reshape(batch, height // k, k, width // k, k, channels).mean(axis=(2, 4))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Blurred:
    """A convolution with one kernel for all channels; the edges continue on the other side.

    Attributes:
        kernel: (h, w), odd, not larger than the images.
    """

    kernel: Float[AnyArray, "h w"]

    def __call__(self, images: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """The blurred images."""
        kernel = jnp.asarray(self.kernel, images.dtype)
        size, sides = images.shape[1:3], kernel.shape
        fits = len(sides) == 2 and all(
            side % 2 and side <= whole for side, whole in zip(sides, size, strict=True)
        )
        if not fits:
            raise ValueError(
                f"a kernel has two odd sides, at most those of the images {size}, got {sides}"
            )
        padded = jnp.zeros(size, images.dtype).at[: sides[0], : sides[1]].set(kernel)
        centered = jnp.roll(padded, (-(sides[0] // 2), -(sides[1] // 2)), (0, 1))
        factors = jnp.fft.rfft2(centered)[None, :, :, None]
        return jnp.fft.irfft2(factors * jnp.fft.rfft2(images, axes=(1, 2)), size, axes=(1, 2))


def transposed(
    measure: Measure, values: Float[Array, "b ..."], shape: tuple[int, ...], dtype: Any
) -> Float[Array, "b h w c"]:
    """A^T of values, for images of a shape.

    Raises:
        ValueError: the measurement is not linear.
    """
    try:
        (found,) = jax.linear_transpose(measure, jax.ShapeDtypeStruct(shape, dtype))(values)
    except NotImplementedError as error:
        raise ValueError(
            f"measure must be linear ({error}); dps takes any that has a derivative"
        ) from error
    return found


def residual(
    measure: Measure, y: Float[Array, "..."], images: Float[Array, "b h w c"]
) -> Float[Array, "b ..."]:
    """The misfit y - A images.

    Raises:
        ValueError: y is not of a shape that the measurement gives for these images.
    """
    seen = measure(images)
    if y.shape[1:] != seen.shape[1:] or y.shape[0] not in (1, seen.shape[0]):
        raise ValueError(
            f"y must be of shape {seen.shape}, or one for all {(1, *seen.shape[1:])}, as measure "
            f"gives it for images of {images.shape}; got {y.shape}"
        )
    return y - seen


def explained(
    measure: Measure,
    residual: Float[Array, "b ..."],
    images: Float[Array, "b h w c"],
    gain: Any,
    ridge: Any,
) -> Float[Array, "b h w c"]:
    """A^T (gain A A^T + ridge)^-1 of a residual, the least image that explains it.

    Computed as (gain A^T A + ridge)^-1 A^T, which also holds for residuals that no image has.

    Args:
        measure: A.
        residual: of the measurement.
        images: of the shape and dtype that it takes.
        gain: number, > 0.
        ridge: number, >= 0.
    """
    back = transposed(measure, residual, images.shape, images.dtype)
    leaves, structure = jax.tree.flatten(measure)

    def product(image: Array, own: list[Any]) -> Array:
        alone = jax.tree.unflatten(structure, own)
        seen = alone(image[None])
        return gain * transposed(alone, seen, (1, *image.shape), image.dtype)[0] + ridge * image

    def solve(image: Array, own: list[Any]) -> Array:
        found, _ = jax.scipy.sparse.linalg.cg(
            partial(product, own=own), image, tol=TOLERANCE, maxiter=ITERATIONS
        )
        return found

    # Leaves with a row for each image, such as masks (B, H, W, 1), go along with the images.
    axes = [0 if np.ndim(leaf) == 4 and np.shape(leaf)[0] > 1 else None for leaf in leaves]
    return jax.vmap(solve, in_axes=(0, axes))(back, leaves)


def values_of(measure: Any, y: Any, std: Any = None) -> dict[str, Any]:
    """The values of a guide by a measurement, checked.

    Args:
        measure: a measurement; a plain function becomes a `Partial`.
        y: what was measured, one row for each image, or one for all.
        std: of its noise; None: the guide has none.

    Raises:
        ValueError: it is no function, y has no rows or is not finite, or std is not a number of at
            least 0.
    """
    if not callable(measure):
        raise ValueError(f"measure must be a function of images, got {type(measure).__name__}")
    known = isinstance(measure, Masked | Downsampled | Blurred | jax.tree_util.Partial)
    found = jnp.asarray(y, jnp.float32)
    if found.ndim < 2:
        raise ValueError(f"y must have a row for each image, or one for all; got {found.shape}")
    if not isinstance(found, jax.core.Tracer) and not np.isfinite(np.asarray(found)).all():
        raise ValueError("y must be finite")
    values = {"measure": measure if known else jax.tree_util.Partial(measure), "y": found}
    if std is None:
        return values
    if not is_number(std) or not 0 <= std < np.inf:
        raise ValueError(f"std must be a number of at least 0, got {std!r}")
    return values | {"std": jnp.float32(std)}
