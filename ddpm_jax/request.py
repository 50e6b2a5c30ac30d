"""What a pipeline is asked for, checked on the host and brought into one form.

One key for each image, a starting point, labels and places: then nothing downstream has two cases.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Key, Shaped

from ddpm_jax.models import UNet2DModel
from ddpm_jax.sampling import prior, sample_keys
from ddpm_jax.table import Table


class Batch(NamedTuple):
    """The inputs of one run, on the devices, padded to what the sharding needs.

    Attributes:
        count: images asked for; the rest of the rows repeat the last one and are dropped.
        params: {"unet": params} and, with classes, {"labels": labels}.
        x_T: register 0 at row 0.
        keys: one for each row.
        place: puts a table where the batch is.
    """

    count: int
    params: dict[str, Any]
    x_T: Float[Array, "b h w c"]
    keys: Key[Array, "b"]
    place: Callable[[Table], Table]


def make_batch(
    model: UNet2DModel,
    params: Any,
    table: Table,
    key: ArrayLike,
    batch_size: int | None,
    class_labels: ArrayLike | None,
    x_T: Float[Array, "b h w c"] | Float[np.ndarray, "b h w c"] | None,
    sharding: NamedSharding | None,
) -> Batch:
    """Checks the arguments of a pipeline's call and places them.

    Raises:
        TypeError: `key` is no key.
        ValueError: arguments that do not agree with each other or with the model.
    """
    if batch_size is None and x_T is not None:
        batch_size = x_T.shape[0]
    keys = image_keys(key, batch_size)
    count = keys.shape[0]
    labels = None if class_labels is None else image_labels(model, class_labels, count)
    if x_T is not None:
        check_start(model, x_T, count)
    if sharding is None:
        start = prior(table, keys, image_shape(model)) if x_T is None else jnp.asarray(x_T)
        given = {"unet": params} if labels is None else {"unet": params, "labels": labels}
        return Batch(count, given, start, keys, jax.device_put)
    split, whole = batch_sharding(sharding), NamedSharding(sharding.mesh, PartitionSpec())
    # The last image is repeated until every device has as many.
    rows = np.minimum(np.arange(-(-count // shards(split)) * shards(split)), count - 1)
    keys = jax.device_put(keys[rows], split)
    start = prior(table, keys, image_shape(model)) if x_T is None else jnp.asarray(x_T)[rows]
    given = {"unet": _on_mesh(params, whole)}
    if labels is not None:
        given["labels"] = jax.device_put(labels[rows], split)
    return Batch(
        count, given, jax.device_put(start, split), keys, lambda table: jax.device_put(table, whole)
    )


def image_keys(key: ArrayLike, batch_size: int | None) -> Key[Array, "b"]:
    """One key for each image: those given, or fold_in(key, i) of a single one.

    Raises:
        TypeError: `key` is neither typed (`jax.random.key`) nor a legacy uint32 key.
        ValueError: keys of other shapes, a number of keys that differs from `batch_size`, or a
            `batch_size` below 1.
    """
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    keys = _typed(key)
    if keys.ndim == 0:
        return sample_keys(keys, 1 if batch_size is None else batch_size)
    if keys.ndim > 1 or not len(keys):
        raise ValueError(f"key must be one key or (B,) keys, one for each image; got {keys.shape}")
    if batch_size not in (None, len(keys)):
        raise ValueError(f"{len(keys)} keys were given for a batch of {batch_size} images")
    return keys


def _typed(key: ArrayLike) -> Key[Array, "..."]:
    if isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        return key
    if isinstance(key, jax.Array | np.ndarray) and key.dtype == np.uint32 and key.ndim:
        return jax.random.wrap_key_data(jnp.asarray(key))
    raise TypeError(
        f"key must be a key such as jax.random.key(0), or (B,) of them, got {type(key).__name__}"
    )


def image_labels(model: UNet2DModel, labels: ArrayLike, count: int) -> Shaped[Array, "b ..."]:
    """Labels for each image; a single one is for all of them.

    Raises:
        ValueError: another number of labels than images, or a class that the model does not have.
    """
    given = np.asarray(labels)
    given = np.broadcast_to(given, (count,)) if given.ndim == 0 else given
    if given.shape[0] != count:
        raise ValueError(
            f"class_labels must be one or {count}, one for each image; got {given.shape[0]}"
        )
    classes = model.config.num_class_embeds
    if classes is not None and model.config.class_embed_type is None:
        wrong = sorted({int(label) for label in given.ravel() if not 0 <= label < classes})
        if wrong:
            raise ValueError(f"class_labels must lie in 0..{classes - 1}, got {wrong}")
    return jnp.asarray(given)


def image_shape(model: UNet2DModel) -> tuple[int, int, int]:
    """(H, W, C) of the model's pictures.

    Raises:
        ValueError: the model's config does not say.
    """
    size = model.config.sample_size
    if size is None:
        raise ValueError("this model's config has no sample_size: give x_T, of shape (B, H, W, C)")
    height, width = (size, size) if isinstance(size, int) else size
    return height, width, model.config.in_channels


def check_start(model: UNet2DModel, x_T: Any, count: int) -> None:
    """Raises ValueError unless `x_T` has a row for each image and the model's channels."""
    channels = model.config.in_channels
    if x_T.ndim != 4 or x_T.shape[0] != count or x_T.shape[-1] != channels:
        raise ValueError(f"x_T must be ({count}, H, W, {channels}), got shape {x_T.shape}")


def batch_sharding(sharding: NamedSharding) -> NamedSharding:
    """The sharding of axis 0 alone, which fits arrays of any rank.

    Raises:
        ValueError: another axis than the batch is sharded, or none is.
    """
    first, *rest = (*sharding.spec, None)
    if first is None or any(axis is not None for axis in rest):
        raise ValueError(
            f"sharding must split the batch axis, and only it: PartitionSpec('batch') for an axis "
            f"of that name; got {sharding.spec}"
        )
    return NamedSharding(sharding.mesh, PartitionSpec(first))


def shards(sharding: NamedSharding) -> int:
    """Into how many parts the batch is split."""
    first = sharding.spec[0]
    names = first if isinstance(first, tuple) else (first,)
    return int(np.prod([sharding.mesh.shape[name] for name in names]))


def _on_mesh(params: Any, whole: NamedSharding) -> Any:
    """Params where they lie, if that is on the mesh already; else a copy on each device."""
    devices = whole.device_set

    def place(leaf: Any) -> Array:
        there = isinstance(leaf, jax.Array) and leaf.sharding.device_set == devices
        return leaf if there else jax.device_put(leaf, whole)

    return jax.tree.map(place, params)
