"""Training over one device or several, and over several processes: where every array is.

A mesh has two axes: "data" and "fsdp", 1 x 1 on one device. The batch is cut over both, so every
device computes on images of its own. Params, their average and the optimiser's state are cut over
"fsdp" and copied along "data":

    fsdp = 1               data-parallel: every device holds a whole state
    fsdp = all devices     fully sharded: every device holds its part of the state
    between                both; the parts lie on devices of one process where they can

The state is cut between steps. Within one, `gather_params` puts the params together, and hands back
gradients that are cut again; otherwise the compiler is free to cut the network by channels instead,
and to send activations around. Neither the draws nor the loss depend on the mesh, but for rounding.

Reference: Rajbhandari et al. 2020, arXiv:1910.02054 (ZeRO).
"""

import math
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ddpm_jax.training.state import TrainState, init_state
from ddpm_jax.training.step import LossFunction, Metrics

if TYPE_CHECKING:
    import optax

MIN_SIZE = 2**14
"""Numbers in a leaf; smaller ones are not cut: a copy of 64 kB costs less than to gather it."""


def make_mesh(data: int | None = None, fsdp: int = 1) -> Mesh:
    """A mesh over all devices of all processes.

    Devices stand in the order of their processes, so process p feeds the p-th part of a batch.

    Args:
        data: copies of the state; None: as many as the devices allow.
        fsdp: devices that each copy is cut over.

    Returns:
        Axes "data" and "fsdp".

    Raises:
        ValueError: the numbers do not multiply to that of the devices.

    >>> from ddpm_jax.training import make_mesh
    >>> make_mesh(fsdp=1).axis_names
    ('data', 'fsdp')
    """
    devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    count = len(devices)
    if fsdp < 1 or count % fsdp:
        raise ValueError(f"fsdp must divide the number of devices, {count}; got {fsdp}")
    data = count // fsdp if data is None else data
    if data * fsdp != count:
        raise ValueError(
            f"data times fsdp must be the number of devices, {count}; got {data} x {fsdp}"
        )
    grid = np.array(devices).reshape(data, fsdp)
    return Mesh(grid, ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)


def leaf_sharding(shape: tuple[int, ...], mesh: Mesh, *, min_size: int = MIN_SIZE) -> NamedSharding:
    """Where a leaf of a state is: its largest axis that "fsdp" divides is cut.

    Among equals the last is taken. Leaves of fewer than `min_size` numbers, and those without such
    an axis, are copied.

    Read a checkpoint so that no device ever holds all of it with
    `from_pretrained(path, sharding=lambda path, shape: leaf_sharding(shape, mesh))`.

    >>> from ddpm_jax.training import leaf_sharding, make_mesh
    >>> leaf_sharding((3, 3, 128, 256), make_mesh(), min_size=10**9).is_fully_replicated
    True
    """
    parts = mesh.shape["fsdp"]
    axes = [axis for axis, size in enumerate(shape) if size and size % parts == 0]
    if parts == 1 or not axes or math.prod(shape) < min_size:
        return NamedSharding(mesh, PartitionSpec())
    largest = max(axes, key=lambda axis: (shape[axis], axis))
    return NamedSharding(mesh, PartitionSpec(*(None,) * largest, "fsdp"))


def state_shardings(state: Any, mesh: Mesh, *, min_size: int = MIN_SIZE) -> Any:
    """`leaf_sharding` of every leaf; key and step, being scalars, are copied.

    Args:
        state: a `TrainState` or any tree of arrays, or of shapes as `jax.eval_shape` gives them.
        mesh: by `make_mesh`.
        min_size: see `leaf_sharding`.

    Returns:
        The same tree with shardings for leaves: what `make_train_step`, `jax.device_put` and the
        restoring of a checkpoint take.
    """
    return jax.tree.map(lambda leaf: leaf_sharding(leaf.shape, mesh, min_size=min_size), state)


def init_sharded(
    params: Any,
    optimizer: "optax.GradientTransformation",
    key: jax.Array,
    mesh: Mesh,
    *,
    min_size: int = MIN_SIZE,
) -> tuple[TrainState, Any]:
    """`init_state` over a mesh, and its shardings; a device holds no more than its part.

    Args:
        params: on the host or anywhere; the same values in every process. Draw those that no
            device can hold under `jax.default_device(jax.local_devices(backend="cpu")[0])`.
        optimizer: any optax transformation.
        key: one key, typed or legacy.
        mesh: by `make_mesh`.
        min_size: see `leaf_sharding`.

    >>> import jax, ddpm_jax as dj
    >>> from ddpm_jax.training import Optimizer, init_sharded, make_mesh
    >>> model, params = dj.UNet2DModel.from_pretrained("digits")
    >>> adam = Optimizer().make(steps=1000)
    >>> state, shardings = init_sharded(params, adam, jax.random.key(0), make_mesh())
    >>> state.step.sharding == shardings.step
    True
    """

    def init(params: Any, key: Any) -> TrainState:
        return init_state(params, optimizer, key)

    shardings = state_shardings(jax.eval_shape(init, params, key), mesh, min_size=min_size)
    placed = jax.tree.map(_place, params, shardings.params)
    return jax.jit(init, out_shardings=shardings)(placed, key), shardings


def gather_params(loss: LossFunction, shardings: Any) -> LossFunction:
    """The same loss of params that are cut: whole inside, and gradients cut like them outside.

    Args:
        loss: as `make_update` takes it.
        shardings: of the params, `state_shardings(...).params`.

    >>> import ddpm_jax as dj
    >>> from ddpm_jax.training import gather_params, make_loss, make_mesh, state_shardings
    >>> model, params = dj.UNet2DModel.from_pretrained("digits")
    >>> loss = make_loss(model, dj.DDPMScheduler.from_pretrained("digits"))
    >>> loss = gather_params(loss, state_shardings(params, make_mesh()))
    """
    whole = jax.tree.map(lambda sharding: NamedSharding(sharding.mesh, PartitionSpec()), shardings)

    def gathered(params: Any, batch: Any, key: jax.Array) -> tuple[jax.Array, Metrics]:
        # Transposed, the first line cuts each gradient as soon as it is there.
        params = lax.with_sharding_constraint(params, shardings)
        params = lax.with_sharding_constraint(params, whole)
        return loss(params, batch, key)

    return gathered


def fetch(tree: Any) -> Any:
    """NumPy copies of arrays wherever they are, gathered one leaf at a time.

    All processes must call it together; each gets everything.
    """

    def whole(leaf: Any) -> np.ndarray:
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            sharding: Any = leaf.sharding  # a NamedSharding, as everything here has
            leaf = replicate(leaf, sharding.mesh)
        return np.asarray(leaf)

    return jax.tree.map(whole, tree)


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Whole on every device; all processes must call it together, with the same values."""
    # Compiled, for device_put refuses typed keys on the devices of several processes.
    return jax.jit(_same, out_shardings=NamedSharding(mesh, PartitionSpec()))(tree)


def _same(tree: Any) -> Any:
    return tree


def batch_sharding(mesh: Mesh, *, stacked: bool = False) -> NamedSharding:
    """Images cut over all devices.

    Args:
        mesh: by `make_mesh`.
        stacked: there is an axis of steps in front, as `make_train_steps` takes batches.
    """
    front = (None,) if stacked else ()
    return NamedSharding(mesh, PartitionSpec(*front, ("data", "fsdp")))


def place_batch(batch: Any, mesh: Mesh, *, stacked: bool = False) -> Any:
    """A batch of the host, cut over all devices.

    Args:
        batch: a tree of NumPy arrays (B, ...), or (steps, B, ...). Of several processes, p of P
            gives its own rows: those from p B / P to (p + 1) B / P of the whole batch.
        mesh: by `make_mesh`.
        stacked: there is an axis of steps in front.

    Returns:
        Global arrays, whose rows are those of all processes.

    Raises:
        ValueError: the rows do not divide over this process's devices.

    >>> import numpy as np
    >>> from ddpm_jax.training import make_mesh, place_batch
    >>> mesh = make_mesh()
    >>> place_batch({"image": np.zeros((mesh.size, 8, 8, 1), np.float32)}, mesh)["image"].ndim
    4
    """
    sharding, axis = batch_sharding(mesh, stacked=stacked), int(stacked)
    devices = len(mesh.local_devices)
    for size in sorted({leaf.shape[axis] for leaf in jax.tree.leaves(batch)}):
        if not size or size % devices:
            raise ValueError(
                f"a batch must divide over this process's {devices} devices, got {size} images"
            )
    return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(sharding, leaf), batch)


def check_batch_size(batch_size: int, mesh: Mesh, *, accumulate: int = 1) -> None:
    """Whether every device gets equally many images, in every part of a batch.

    Args:
        batch_size: B, over all processes.
        mesh: by `make_mesh`.
        accumulate: as `make_update` takes it.

    Raises:
        ValueError: it does not; the message names the nearest sizes that would do.
    """
    unit = mesh.size * accumulate
    if batch_size >= 1 and batch_size % unit == 0:
        return
    parts = f" in {accumulate} parts" if accumulate > 1 else ""
    near = [size for size in (batch_size // unit * unit, (batch_size // unit + 1) * unit) if size]
    raise ValueError(
        f"a batch of {batch_size} does not divide over {mesh.size} devices{parts}; "
        f"take {' or '.join(map(str, near))}"
    )


def _place(leaf: Any, sharding: NamedSharding) -> jax.Array:
    """A leaf that every process has, cut without asking the others."""
    if isinstance(leaf, jax.Array) and (not leaf.is_fully_addressable or leaf.sharding == sharding):
        return jax.device_put(leaf, sharding)
    host = np.asarray(leaf)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])
