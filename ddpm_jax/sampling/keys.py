"""All randomness: one key per image, and one function that draws noise.

The prior is drawn from fold_in(key, 0), the noise of row i from fold_in(key, i + 1), and that of an
encoded image's latents from the last numbers, always in float32. So a key gives the same initial
noise for every scheduler and number of steps, no draw is used twice, and an image's noise does not
depend on the batch or the number of devices.
"""

from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, UInt32

from ddpm_jax._typing import AnyArray, Leaf, is_whole
from ddpm_jax.sampling import forward
from ddpm_jax.sampling.forward import Images
from ddpm_jax.tables.table import Table

Keys: TypeAlias = Key[Array, "b"] | UInt32[AnyArray, "b 2"]
"""One key per image; legacy uint32 keys are accepted."""


def sample_keys(key: Key[Array, ""] | UInt32[AnyArray, "2"], batch_size: int) -> Key[Array, "b"]:
    """One key per image: fold_in(key, i) for image i, for every batch size.

    Args:
        key: one key, typed or legacy.
        batch_size: B, at least 1.

    Returns:
        (B,) typed keys.

    >>> import jax, ddpm_jax as dj
    >>> dj.sample_keys(jax.random.key(0), 4).shape
    (4,)
    """
    typed = typed_keys(key)
    if typed.shape != ():
        raise ValueError(f"sample_keys takes one key, got keys of shape {typed.shape}")
    if not is_whole(batch_size) or batch_size < 1:
        raise ValueError(f"batch_size must be a whole number of at least 1, got {batch_size!r}")
    return jax.vmap(partial(jax.random.fold_in, typed))(jnp.arange(batch_size))


def prior(table: Table, keys: Keys, shape: tuple[int, ...]) -> Float[Array, "b h w c"]:
    """The starting point of sampling: init_scale z, register 0 at row 0.

    Args:
        table: the run. Only its `init_scale` is read.
        keys: (B,) one key per image.
        shape: (H, W, C) of one image.

    Returns:
        (B, H, W, C) float32.

    >>> import jax, ddpm_jax as dj
    >>> keys = dj.sample_keys(jax.random.key(0), 4)
    >>> dj.prior(dj.EulerDiscreteScheduler().table(10), keys, shape=(8, 8, 1)).shape
    (4, 8, 8, 1)
    """
    scale = jnp.asarray(table.init_scale, jnp.float32)
    return _prior(typed_keys(keys), scale, _image_shape(shape))


# Compiled, because the few operations take milliseconds if they are dispatched one by one. Only the
# scale of the table is passed, so another number of rows compiles nothing.
@partial(jax.jit, static_argnames="shape")
def _prior(
    keys: Key[Array, "..."], scale: Float[Array, ""], shape: tuple[int, ...]
) -> Float[Array, "b h w c"]:
    return noise(keys, -1, shape) * scale


def noise(keys: Keys, i: int | Leaf, shape: tuple[int, ...]) -> Float[Array, "b h w c"]:
    """The unit noise of row i: (B, H, W, C) float32 from fold_in(keys[b], i + 1).

    Args:
        keys: (B,) one key per image.
        i: the row, from 0; -1 draws the prior. May be a tracer.
        shape: (H, W, C) of one image.

    >>> import jax, ddpm_jax as dj
    >>> dj.noise(dj.sample_keys(jax.random.key(0), 4), 0, shape=(8, 8, 1)).shape
    (4, 8, 8, 1)
    """
    typed = typed_keys(keys)
    if typed.ndim != 1:
        raise ValueError(f"noise takes one key per image, (B,), got keys of shape {typed.shape}")
    shape = _image_shape(shape)

    def draw(key: Key[Array, ""]) -> Array:
        return jax.random.normal(jax.random.fold_in(key, i + 1), shape, jnp.float32)

    return jax.vmap(draw)(typed)


def encoding_noise(keys: Keys, shape: tuple[int, ...], draw: int = 0) -> Float[Array, "b h w c"]:
    """Unit noise for the latents of given images, from fold_in(key, 2**32 - 1 - draw): a draw of
    its own, which no row uses.

    Args:
        keys: (B,) one key per image.
        shape: (H, W, C) of an image's latents.
        draw: 0, or 1 for a second one.
    """
    return noise(keys, 2**32 - 2 - draw, shape)


def _image_shape(shape: Any) -> tuple[int, ...]:
    sides = tuple(shape) if np.iterable(shape) else ()
    if not (len(sides) == 3 and all(is_whole(side) and side > 0 for side in sides)):
        raise ValueError(f"shape must be (H, W, C) of one image, got {shape}")
    return sides


def noised(table: Table, x0: Images, keys: Keys) -> Float[Array, "b h w c"]:
    """Images noised to the level of the table's first row: alpha x0 + sigma z.

    Use it to start a run in the middle, from an image: `scheduler.table(50, start=30)`. z is the
    draw of `prior` from the same keys.

    Args:
        table: the run. Only its first level is read.
        x0: (B, H, W, C) clean images, usually in [-1, 1].
        keys: (B,) one key per image.

    Raises:
        ValueError: the images are not floats, or the numbers of keys and images differ.

    >>> import jax, jax.numpy as jnp, ddpm_jax as dj
    >>> table = dj.DDIMScheduler().table(50, start=30)
    >>> dj.noised(table, jnp.zeros((1, 8, 8, 1)), dj.sample_keys(jax.random.key(0), 1)).shape
    (1, 8, 8, 1)
    """
    forward.check_images(x0)
    z = noise(keys, -1, x0.shape[1:])
    if len(z) != len(x0):
        raise ValueError(f"{len(x0)} images need {len(x0)} keys, got {len(z)}")
    return forward.add_noise(x0, z, table.level[0][0], table.level[0][1])


def check_batch(x: AnyArray) -> None:
    """Raises ValueError unless images are floats (B, H, W, C)."""
    forward.check_images(x)
    if x.ndim != 4:
        raise ValueError(f"samples are (B, H, W, C), got shape {x.shape}")


def keys_for(x: AnyArray, keys: Any) -> Key[Array, "b"]:
    """The typed keys of images, one for each. Raises ValueError for another number of them."""
    typed = typed_keys(keys)
    if typed.shape != x.shape[:1]:
        raise ValueError(f"{x.shape[0]} images need {x.shape[0]} keys, got shape {typed.shape}")
    return typed


def typed_keys(keys: Any) -> Key[Array, "..."]:
    """Typed keys of any shape; legacy (..., 2) uint32 keys are wrapped.

    Raises:
        TypeError: `keys` are not keys.
    """
    if isinstance(keys, jax.Array) and jnp.issubdtype(keys.dtype, jax.dtypes.prng_key):
        return keys
    legacy = isinstance(keys, jax.Array | np.ndarray) and keys.dtype == np.uint32
    if legacy and keys.shape[-1:] == (2,):
        return jax.random.wrap_key_data(jnp.asarray(keys))
    got = f"{keys.dtype} of shape {keys.shape}" if hasattr(keys, "dtype") else repr(keys)
    raise TypeError(f"a key is jax.random.key(seed), or split or folded from a key; got {got}")
