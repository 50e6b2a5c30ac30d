"""A sampler as data: one row of numbers per network evaluation.

Between two evaluations of the network every scheduler is a linear update of a few image-shaped
registers r_0, ..., r_{m-1}. r_0 is the sample. Row i means:

    (1)  output = denoise(params, in_scale_i r_0, timestep_i)
    (2)  x0     = refine(to_x0_i . (r_0, output))
    (3)  r     <- mix_i @ (r_0, ..., r_{m-1}, output[, x0])
    (4)  r_0   <- r_0 + noise_scale_i z

x0 appears in (3) only if `refine` is present. Otherwise the builder expresses it by the other
columns. In numerical analysis this is a general linear method (Butcher 1966).

A table is a pytree: its numbers are leaves, so tables of equal structure (the columns present, m
and n) share one compiled program, and `jax.vmap`, `jax.grad` and `jax.device_put` work on it.
"""

# pyright: reportUnknownMemberType=false
# jax leaves parts of its types open.

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Float

from ddpm_jax._typing import AnyArray, Leaf, Registers
from ddpm_jax.tables.refine import Clip, DynamicThreshold, Refine

PADDED_LENGTH = 1024
"""Rows of a padded table: a power of two that fits the usual 1000 training timesteps."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True, eq=False)
class Row:
    """One network evaluation and the update after it; fields as in `Table`, without n."""

    timestep: Leaf
    level: Leaf
    in_scale: Leaf
    mix: Leaf
    to_x0: Leaf
    noise_scale: Leaf = None
    log_var: Leaf = None
    refine: Refine | None = None


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True, eq=False)
class Table:
    """n rows and m registers. A scheduler writes the table, and one `lax.scan` runs it.

    Attributes:
        timestep: (n,) the timestep passed to the network, float32.
        level: (n, 2) alpha and sigma of r_0 at this row: r_0 = alpha x0 + sigma eps.
        in_scale: (n,) the network's input is in_scale r_0; 1 if variance is preserved.
        mix: (n, m, m + 1), or (n, m, m + 2) with `refine`: the update (3).
        to_x0: (n, 2) coefficients of (r_0, output) in x0, equation (2).
        init_scale: () standard deviation of the prior, the initial r_0.
        noise_scale: (n,) standard deviation of new noise; None: no key is needed.
        log_var: (n, 2) log-variance bounds for models with a learned variance. The standard
            deviation is then noise_scale exp(lerp / 2), see `ddpm_jax.step`.
        refine: `Clip`, `DynamicThreshold` or None.
    """

    timestep: Leaf
    level: Leaf
    in_scale: Leaf
    mix: Leaf
    to_x0: Leaf
    init_scale: Leaf
    noise_scale: Leaf = None
    log_var: Leaf = None
    refine: Refine | None = None

    def __len__(self) -> int:
        """The number of network evaluations."""
        return self.timestep.shape[0]

    def __iter__(self) -> Iterator[Row]:
        return (self.row(i) for i in range(len(self)))

    @property
    def num_registers(self) -> int:
        """m, the number of image-shaped registers."""
        return self.mix.shape[-2]

    def init(self, x_T: Float[AnyArray, "b h w c"]) -> Registers:
        """The registers before the first row: the sample, and zeros in the others."""
        return (x_T, *(jnp.zeros_like(x_T) for _ in range(self.num_registers - 1)))

    def row(self, i: int | Leaf) -> Row:
        """Row i, which may be a tracer. A number outside 0..n-1 raises IndexError."""
        if isinstance(i, int | np.integer):
            if not 0 <= i < len(self):
                raise IndexError(f"a table of {len(self)} rows has no row {i}")
            columns: dict[str, Leaf] = {n: column[i] for n, column in _columns(self).items()}
        else:
            columns = {
                name: lax.dynamic_index_in_dim(jnp.asarray(column), i, keepdims=False)
                for name, column in _columns(self).items()
            }
        return Row(**columns, refine=self.refine)

    def at(self, timestep: float) -> Row:
        """The row at a timestep, for methods that use one noise level at a time.

        Raises:
            ValueError: the timestep does not occur exactly once, or the table has more than one
                register, so its rows depend on each other.
        """
        if self.num_registers != 1:
            raise ValueError(
                f"a row of a table with {self.num_registers} registers depends on the rows "
                "before it; `at` needs a table of one register, such as DDPM's, DDIM's or Euler's"
            )
        found = np.flatnonzero(np.asarray(self.timestep) == timestep)
        if len(found) == 1:
            return self.row(int(found[0]))
        near = np.argsort(np.abs(np.asarray(self.timestep) - timestep), kind="stable")[:3]
        nearest = ", ".join(f"{self.timestep[i]:g}" for i in sorted(near))
        raise ValueError(
            f"timestep {timestep:g} occurs {len(found)} times in this table of {len(self)} rows; "
            f"the nearest are {nearest}"
        )


def _columns(table: Table) -> dict[str, Leaf]:
    """The columns that are present. Each has one entry per row."""
    scalars = ("init_scale", "refine")
    named = {f.name: getattr(table, f.name) for f in fields(table) if f.name not in scalars}
    return {name: column for name, column in named.items() if column is not None}


def pad(table: Table, length: int | None = None) -> Table:
    """Appends identity rows, so that runs of many lengths share one compiled program.

    Args:
        table: n rows.
        length: rows of the result, at least n. Default: 1024, or the next power of two.

    Raises:
        ValueError: `length` is smaller than the table.

    >>> import ddpm_jax as dj
    >>> len(dj.pad(dj.DDIMScheduler().table(50)))
    1024
    """
    count = len(table)
    length = max(PADDED_LENGTH, 1 << (count - 1).bit_length()) if length is None else length
    if length < count:
        raise ValueError(f"a table of {count} rows cannot be padded to {length}")
    extra = length - count
    padding = {
        name: np.repeat(np.zeros_like(column[-1:]), extra, axis=0)
        for name, column in _columns(table).items()
    }
    padding["mix"][:] = np.eye(*table.mix.shape[1:])
    padding["level"][:] = table.level[-1]
    padding["in_scale"][:] = 1
    return replace(
        table,
        **{
            name: np.concatenate([column, padding[name]])
            for name, column in _columns(table).items()
        },
    )


def stack(tables: Iterable[Table]) -> Table:
    """Converts tables of equal length to one structure and stacks them, for `jax.vmap`.

    Missing parts are added without changing a table's result: noise of scale 0, log-variance bounds
    (0, 0), the refinement of the other tables with a zero x0 column, and registers that do not
    change.

    Args:
        tables: one or more, each with NumPy leaves and n rows.

    Returns:
        A table with a new leading axis in every leaf. Map over it: its `len` is not n.

    Raises:
        ValueError: no tables, different lengths, or both `Clip` and `DynamicThreshold`.

    >>> import ddpm_jax as dj
    >>> tables = [dj.DDIMScheduler().table(10, eta=eta) for eta in (0.0, 0.5, 1.0)]
    >>> dj.stack(tables).noise_scale.shape
    (3, 10)
    """
    tables = list(tables)
    if not tables:
        raise ValueError("stack needs at least one table")
    lengths = sorted({len(table) for table in tables})
    if len(lengths) > 1:
        raise ValueError(f"stacked tables need equal lengths, got {lengths}")
    kinds = {type(table.refine) for table in tables if table.refine is not None}
    if len(kinds) > 1:
        raise ValueError("tables with Clip and with DynamicThreshold cannot be stacked")
    registers = max(table.num_registers for table in tables)
    noisy = any(table.noise_scale is not None for table in tables)
    learned = any(table.log_var is not None for table in tables)
    refine = kinds.pop() if kinds else None
    alike = [_conform(table, registers, noisy, learned, refine) for table in tables]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *alike)


def wider_mix(mix: Leaf, registers: int, *, x0: bool) -> np.ndarray:
    """The update (3) with more registers, which do not change.

    Args:
        mix: (n, m, m + 1), or (n, m, m + 2) with a column for x0.
        registers: new number of registers, at least m.
        x0: whether to add a column for x0 if there is none. An existing column stays.

    Returns:
        (n, registers, registers + 1), or one column more with x0.
    """
    count, own, width = mix.shape
    sources = registers + max(width - own, 1 + x0)
    wide = np.zeros((count, registers, sources), mix.dtype)
    wide[:, own:] = np.eye(registers, sources, dtype=mix.dtype)[own:]
    wide[:, :own, :own] = mix[:, :, :own]
    wide[:, :own, registers : registers + width - own] = mix[:, :, own:]
    return wide


def _conform(
    table: Table, registers: int, noisy: bool, learned: bool, refine: type[Refine] | None
) -> Table:
    """The same sampler with more registers and the requested columns."""
    count, dtype = len(table), table.mix.dtype
    wide = wider_mix(table.mix, registers, x0=refine is not None)
    return replace(
        table,
        mix=wide,
        noise_scale=np.zeros(count, dtype) if noisy and table.noise_scale is None
        else table.noise_scale,
        log_var=np.zeros((count, 2), dtype) if learned and table.log_var is None
        else table.log_var,
        refine=_idle(refine, dtype) if refine and table.refine is None else table.refine,
    )  # fmt: skip


def _idle(kind: type[Refine], dtype: np.dtype) -> Refine:
    """A refinement of this type with the smallest possible effect."""
    one, inf = np.asarray(1, dtype), np.asarray(np.inf, dtype)
    return Clip(limit=inf) if kind is Clip else DynamicThreshold(ratio=one, max_value=one)
