"""The inputs of a run, checked on the host and converted to one form on the devices.

The form: one key for each image, a starting point, and conditions. Later code has no special
cases.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Key, Shaped

from ddpm_jax._typing import is_whole
from ddpm_jax.hub.files import listed
from ddpm_jax.images import MODES
from ddpm_jax.models import UNet2DModel
from ddpm_jax.pipelines.beginning import Begin, Beginning, first_noise
from ddpm_jax.sampling.keys import sample_keys, typed_keys
from ddpm_jax.tables.table import Table

Labels: TypeAlias = ArrayLike | Sequence[int] | str | Sequence[str]
"""Classes by number or name: one for all images, or one for each."""


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The inputs of a run, padded to a batch size that the sharding can split.

    Attributes:
        count: number of requested images. Later rows repeat the last image and are dropped.
        x_T: register 0 at row 0.
        keys: one for each row.
        conditions: arrays with one entry for each row, by name. "context" is what the network is
            conditioned on, "negative" what guidance moves away from, and "channels" what the
            network takes beside the noisy images.
        place: copies params or a table to all devices of the inputs. Arrays that are already there
            are not copied.
    """

    count: int
    x_T: Float[Array, "b h w c"]
    keys: Key[Array, "b"]
    place: Callable[[Any], Any] = jax.device_put
    conditions: Mapping[str, Shaped[Array, "b ..."]] = field(default_factory=dict)


def make_inputs(
    model: UNet2DModel,
    table: Table,
    key: ArrayLike,
    *,
    batch_size: int | None = None,
    class_labels: Labels | None = None,
    negative_labels: Labels | None = None,
    x_T: ArrayLike | None = None,
    begin: Begin | None = None,
    sharding: NamedSharding | None = None,
) -> Inputs:
    """Checks the arguments of a pipeline's call and places them.

    `begin` says where the run begins; without it, it begins with noise.

    Raises:
        TypeError: `key` is not a key.
        ValueError: arguments do not match each other or the model.
    """
    start = None if x_T is None else starting_point(model, x_T)
    if batch_size is None and start is not None:
        batch_size = start.shape[0]
    keys = image_keys(key, batch_size)
    count = keys.shape[0]
    if start is not None and start.shape[0] != count:
        raise ValueError(f"x_T has {start.shape[0]} images, but the batch size is {count}")
    labels = {"context": class_labels, "negative": negative_labels}
    conditions = {
        name: image_labels(model, given, count)
        for name, given in labels.items()
        if given is not None
    }
    if begin is not None:
        beginning = begin(table, keys, start)
    elif start is None:
        beginning = Beginning(x_T=first_noise(table, keys, image_shape(model)))
    else:
        beginning = Beginning(x_T=start)
    conditions |= beginning.known
    inputs = Inputs(count=count, x_T=beginning.x_T, keys=keys, conditions=conditions)
    return inputs if sharding is None else sharded(inputs, sharding)


def sharded(inputs: Inputs, sharding: NamedSharding) -> Inputs:
    """The inputs, split over devices. The last image is repeated until all devices have the same
    number of images.

    Raises:
        ValueError: `sharding` does not split the batch axis, or splits another axis.
    """
    split, whole = batch_sharding(sharding), NamedSharding(sharding.mesh, PartitionSpec())
    rows = np.arange(-(-inputs.count // shards(split)) * shards(split))
    rows = np.minimum(rows, inputs.count - 1)
    return replace(
        inputs,
        x_T=jax.device_put(inputs.x_T[rows], split),
        keys=jax.device_put(inputs.keys[rows], split),
        conditions={
            name: jax.device_put(one[rows], split) for name, one in inputs.conditions.items()
        },
        place=partial(_on_mesh, whole=whole),
    )


def kind_of(given: Any) -> str:
    """The type of an argument, for an error message."""
    return f"the class {given.__name__}" if isinstance(given, type) else type(given).__name__


def check_channels(config: Mapping[str, Any]) -> None:
    """Raises ValueError unless the output of a network is a prediction for its input.

    A network with learned variances has twice the channels. Others, such as those of
    super-resolution, take more than the noisy images.
    """
    taken, given = config["in_channels"], config["out_channels"]
    if given not in (taken, 2 * taken):
        raise ValueError(
            f"a network with in_channels {taken} and out_channels {given} cannot be sampled: "
            f"out_channels must be in_channels, or twice as many for learned variances"
        )


def check_pil(model: UNet2DModel) -> None:
    """Raises ValueError if PIL has no mode for the number of channels of the model's images."""
    channels = model.config.in_channels
    if channels not in MODES:
        raise ValueError(
            f"PIL images have 1, 3 or 4 channels, but this model's have {channels}: "
            'pass output_type="np"'
        )


def count_of(name: str, number: Any) -> int:
    """A count as an int. NumPy's integers are accepted, bools are not.

    Raises:
        ValueError: it is not a whole number, or is below 1.
    """
    if not is_whole(number):
        raise ValueError(f"{name} must be a whole number, got {number!r}")
    if number < 1:
        raise ValueError(f"{name} must be at least 1, got {number}")
    return int(number)


def image_keys(key: ArrayLike, batch_size: int | None) -> Key[Array, "b"]:
    """One key for each image: the given keys, or fold_in(key, i) for a single key.

    Raises:
        TypeError: `key` is neither typed (`jax.random.key`) nor a legacy uint32 key.
        ValueError: keys have another shape, the number of keys differs from `batch_size`, or
            `batch_size` is not a whole number of at least 1.
    """
    if batch_size is not None:
        batch_size = count_of("batch_size", batch_size)
    keys = typed_keys(key)
    if keys.ndim == 0:
        return keys_of(keys, 1 if batch_size is None else batch_size)
    if keys.ndim > 1 or not len(keys):
        raise ValueError(f"key must be one key or (B,) keys, one for each image; got {keys.shape}")
    if batch_size not in (None, len(keys)):
        raise ValueError(f"got {len(keys)} keys for a batch of {batch_size} images")
    return keys


# Compiled, because the few operations take milliseconds if they are dispatched one by one.
keys_of = jax.jit(sample_keys, static_argnames="batch_size")


def image_labels(model: UNet2DModel, labels: Labels, count: int) -> Shaped[Array, "b ..."]:
    """One label for each image. A single label applies to all images.

    Raises:
        ValueError: the numbers of labels and images differ, or the model does not have a class.
    """
    given = np.asarray(labels)
    if given.dtype.kind not in "biuf":
        raise ValueError(f"class_labels must be numbers, got {labels!r}")
    given = np.broadcast_to(given, (count,)) if given.ndim == 0 else given
    if given.shape[0] != count:
        raise ValueError(
            f"class_labels must be one or {count}, one for each image; got {given.shape[0]}"
        )
    classes = model.config.num_class_embeds
    if classes is not None and model.config.class_embed_type is None:
        wrong = sorted({int(label) for label in given.ravel() if not 0 <= label < classes})
        if wrong:
            raise ValueError(f"class_labels must lie in 0..{classes - 1}, got {listed(wrong)}")
    return jnp.asarray(given)


def image_shape(model: UNet2DModel) -> tuple[int, int, int]:
    """(H, W, C) of the model's images.

    Raises:
        ValueError: the model's config has no sample_size.
    """
    size = model.config.sample_size
    if size is None:
        raise ValueError("this model's config has no sample_size: give x_T, of shape (B, H, W, C)")
    height, width = (size, size) if isinstance(size, int) else size
    return height, width, model.config.in_channels


def starting_point(model: UNet2DModel, x_T: ArrayLike) -> Float[Array, "b h w c"]:
    """`x_T` on the device, in float32.

    Raises:
        ValueError: its shape is not (B, H, W, C) with the model's channels.
    """
    channels, shape = model.config.in_channels, np.shape(x_T)
    if len(shape) != 4 or shape[-1] != channels:
        raise ValueError(f"x_T must be (B, H, W, {channels}), got shape {shape}")
    return jnp.asarray(x_T, jnp.float32)


def batch_sharding(sharding: NamedSharding) -> NamedSharding:
    """The sharding of axis 0 only, which is valid for arrays of any rank.

    Raises:
        ValueError: it is not a NamedSharding, or splits axes other than exactly the batch axis.
    """
    if not isinstance(sharding, NamedSharding):
        raise ValueError(
            "sharding must be a NamedSharding that splits the batch axis, "
            f"NamedSharding(mesh, PartitionSpec('batch')); got {sharding!r}"
        )
    first, *rest = (*sharding.spec, None)
    if first is None or any(axis is not None for axis in rest):
        raise ValueError(
            f"sharding must split the batch axis and no other: PartitionSpec('batch') for a mesh "
            f"axis of that name; got {sharding.spec}"
        )
    return NamedSharding(sharding.mesh, PartitionSpec(first))


def shards(sharding: NamedSharding) -> int:
    """The number of parts that the batch is split into."""
    first = sharding.spec[0]
    names = first if isinstance(first, tuple) else (first,)
    return int(np.prod([sharding.mesh.shape[name] for name in names]))


def _on_mesh(tree: Any, whole: NamedSharding) -> Any:
    """The tree on the mesh. Arrays on other devices are copied to each device of the mesh."""
    devices = whole.device_set

    def place(leaf: Any) -> Array:
        placed = isinstance(leaf, jax.Array) and leaf.sharding.device_set == devices
        return leaf if placed else jax.device_put(leaf, whole)

    return jax.tree.map(place, tree)
