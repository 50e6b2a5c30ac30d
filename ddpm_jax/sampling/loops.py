"""Compiled loops that run `step` over a table. They draw the noise from keys, one per image.

`denoise(params, x, timestep) -> output` is static and compared by identity: define it once. Put all
values that change between calls in `params`, which may be any pytree.

A `denoise` with a method `replaced(params, i, row, x) -> x` gets register 0 replaced before it
evaluates row i (`ddpm_jax.guidance.known`). One with a method `at_row(params, row, x) -> output`
is asked at the row itself (`ddpm_jax.guidance.guide`).
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

from ddpm_jax._typing import AnyArray, Leaf, Registers, is_whole
from ddpm_jax.sampling.keys import Images, Keys, check_batch, keys_for, noise
from ddpm_jax.sampling.step import predict_x0, step
from ddpm_jax.tables.table import Row, Table

Denoise: TypeAlias = Callable[..., Array]
"""denoise(params, x, timestep) -> output: (B, H, W, C) and a () float32 timestep to (B, H, W, C),
or (B, H, W, 2C) if the second half is a learned variance."""


def sample(
    denoise: Denoise,
    params: Any,
    table: Table,
    x_T: Images,
    keys: Keys | None = None,
    *,
    remat: bool = False,
) -> Images:
    """Runs a whole table as one compiled, differentiable scan.

    Args:
        denoise: denoise(params, x, timestep) -> output. Static, compared by identity: a new lambda
            in each call compiles each time.
        params: any pytree: weights, labels, and all values that change between calls.
        table: the run. Tables of equal structure share one compilation.
        x_T: (B, H, W, C) from `prior` or `noised`.
        keys: (B,) one key per image; None only for a deterministic table.
        remat: for gradients through a run: compute a row's activations again on the way back, so
            that memory holds those of one evaluation, and a copy of the registers for each row.

    Returns:
        (B, H, W, C) samples in the dtype of x_T.

    Raises:
        TypeError: `denoise` is a model.
        ValueError: `table` is not a table, the images are not (B, H, W, C) floats, keys are
            missing, or the numbers of keys and images differ.

    >>> import jax, jax.numpy as jnp, ddpm_jax as dj
    >>> def denoise(params, x, timestep):
    ...     return params * x
    >>> table = dj.DDIMScheduler().table(5)
    >>> x_T = dj.prior(table, dj.sample_keys(jax.random.key(0), 2), shape=(8, 8, 1))
    >>> dj.sample(denoise, jnp.float32(0.1), table, x_T).shape
    (2, 8, 8, 1)
    """
    check_denoise(denoise, params)
    return _scan(denoise, params, table, x_T, _checked_keys(table, x_T, keys), remat)


def sample_with_history(
    denoise: Denoise,
    params: Any,
    table: Table,
    x_T: Images,
    keys: Keys | None = None,
    *,
    every: int = 1,
) -> tuple[Images, Float[AnyArray, "previews b h w c"]]:
    """As `sample`; also returns the predicted x0 after rows every - 1, 2 every - 1, ... and the
    last.

    Args:
        denoise: as in `sample`.
        params: as in `sample`.
        table: as in `sample`.
        x_T: as in `sample`.
        keys: as in `sample`.
        every: rows between previews, at least 1.

    Returns:
        The samples (B, H, W, C), and previews (ceil(n / every), B, H, W, C).

    >>> import jax, jax.numpy as jnp, ddpm_jax as dj
    >>> def denoise(params, x, timestep):
    ...     return params * x
    >>> table = dj.DDIMScheduler().table(5)
    >>> x_T = dj.prior(table, dj.sample_keys(jax.random.key(0), 2), shape=(8, 8, 1))
    >>> _, previews = dj.sample_with_history(denoise, jnp.float32(0.1), table, x_T, every=2)
    >>> previews.shape
    (3, 2, 8, 8, 1)
    """
    if not is_whole(every) or every < 1:
        raise ValueError(f"every must be a whole number of at least 1, got {every!r}")
    check_denoise(denoise, params)
    checked = _checked_keys(table, x_T, keys)
    return _scan_with_history(denoise, params, table, x_T, checked, int(every))


def advance(
    denoise: Denoise,
    params: Any,
    table: Table,
    registers: Registers,
    keys: Keys | None,
    start: int | Leaf,
    stop: int | Leaf,
) -> Registers:
    """Runs rows start, ..., stop - 1 of a table, bit for bit as `sample`.

    For Python code between segments: a progress bar, previews, Ctrl-C. The bounds are traced, so
    with a padded table (`ddpm_jax.pad`) all numbers of steps share one compilation.

    Args:
        denoise: as in `sample`.
        params: as in `sample`.
        table: as in `sample`.
        registers: from `table.init(x_T)` or an earlier segment.
        keys: as in `sample`.
        start: first row.
        stop: the row to stop before.

    Raises:
        ValueError: bounds that are not arrays are out of order or outside the table; or as in
            `sample`.

    >>> import jax, jax.numpy as jnp, ddpm_jax as dj
    >>> def denoise(params, x, timestep):
    ...     return params * x
    >>> table = dj.DDIMScheduler().table(5)
    >>> x_T = dj.prior(table, dj.sample_keys(jax.random.key(0), 2), shape=(8, 8, 1))
    >>> registers = table.init(x_T)
    >>> for start, stop in ((0, 3), (3, 5)):
    ...     registers = dj.advance(denoise, jnp.float32(0.1), table, registers, None, start, stop)
    >>> bool((registers[0] == dj.sample(denoise, jnp.float32(0.1), table, x_T)).all())
    True
    """
    checked = _checked_keys(table, registers[0], keys)
    given = [bound for bound in (start, stop) if not isinstance(bound, jax.Array)]
    ordered = [0, *given, len(table)]
    if not all(map(is_whole, given)) or ordered != sorted(ordered):
        raise ValueError(
            f"start and stop must be whole numbers, 0 <= start <= stop <= {len(table)}, "
            f"got {start} and {stop}"
        )
    return _advance(denoise, params, table, registers, checked, jnp.int32(start), jnp.int32(stop))


@partial(jax.jit, static_argnames=("denoise", "remat"))
def _scan(
    denoise: Denoise, params: Any, table: Table, x_T: Array, keys: Any, remat: bool
) -> AnyArray:
    def body(registers: Registers, i: Array) -> tuple[Registers, None]:
        row, registers, output, drawn = _evaluate(denoise, params, table, registers, keys, i)
        return step(row, registers, output, drawn), None

    body = jax.checkpoint(body, prevent_cse=False) if remat else body
    registers, _ = lax.scan(body, table.init(x_T), jnp.arange(len(table)))
    return registers[0]


@partial(jax.jit, static_argnames=("denoise", "every"))
def _scan_with_history(
    denoise: Denoise, params: Any, table: Table, x_T: Array, keys: Any, every: int
) -> tuple[AnyArray, Array]:
    def body(carry: tuple[Registers, Array], i: Array) -> tuple[tuple[Registers, Array], None]:
        registers, previews = carry
        row, registers, output, drawn = _evaluate(denoise, params, table, registers, keys, i)
        previews = previews.at[i // every].set(predict_x0(row, registers, output))
        return (step(row, registers, output, drawn), previews), None

    previews = jnp.zeros((-(-len(table) // every), *x_T.shape), x_T.dtype)
    (registers, previews), _ = lax.scan(body, (table.init(x_T), previews), jnp.arange(len(table)))
    return registers[0], previews


@partial(jax.jit, static_argnames="denoise")
def _advance(
    denoise: Denoise,
    params: Any,
    table: Table,
    registers: Registers,
    keys: Any,
    start: Array,
    stop: Array,
) -> Registers:
    def body(i: Array, registers: Registers) -> Registers:
        row, registers, output, drawn = _evaluate(denoise, params, table, registers, keys, i)
        return step(row, registers, output, drawn)

    return lax.fori_loop(start, stop, body, registers)


def _evaluate(
    denoise: Denoise, params: Any, table: Table, registers: Registers, keys: Any, i: Array
) -> tuple[Row, Registers, Array, AnyArray | None]:
    """Row i, the registers and the network's output there, and the row's noise: the body of every
    loop.
    """
    row, x = table.row(i), registers[0]
    if (replaced := getattr(denoise, "replaced", None)) is not None:
        x = replaced(params, i, row, x)
        registers = (x, *registers[1:])
    if (at_row := getattr(denoise, "at_row", None)) is not None:
        output = at_row(params, row, x)
    else:
        output = denoise(params, row.in_scale.astype(x.dtype) * x, row.timestep)
    drawn = None if row.noise_scale is None else noise(keys, i, x.shape[1:])
    return row, registers, output, drawn


def check_denoise(denoise: Denoise, params: Any) -> None:
    """Raises TypeError for one of our models, or its `apply` with params that are not in a dict."""
    method = getattr(denoise, "__self__", None)
    wrapped = isinstance(params, Mapping) and "params" in params
    bare = isinstance(method, nn.Module) and denoise == method.apply and not wrapped
    model = method if bare else denoise
    if isinstance(model, nn.Module) and hasattr(model, "denoise"):
        raise TypeError(
            f"denoise must be a function denoise(params, x, timestep), got a "
            f"{type(model).__name__}{'.apply' if bare else ''}: pass its method denoise"
        )


def _checked_keys(table: Table, x: AnyArray, keys: Keys | None) -> Array | None:
    """The keys that the loop needs; None for a deterministic table."""
    if not isinstance(table, Table):
        got = type(table).__name__
        raise ValueError(f"sampling needs a table, such as scheduler.table(50); got {got}")
    if np.ndim(table.timestep) != 1:
        raise ValueError("this is a stack of tables: map over it with jax.vmap")
    check_batch(x)
    if table.noise_scale is None:
        return None
    if keys is None:
        raise ValueError("this table adds noise: it needs keys, one per image, got None")
    return keys_for(x, keys)
