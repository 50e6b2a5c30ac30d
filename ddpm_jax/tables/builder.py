r"""Writes tables, with named registers and readings of the network's output.

A sampler gives levels (alpha, sigma), where x = alpha x0 + sigma eps, and the new value of each
register, in terms of registers, `output`, `x0` and `eps`. How the network's output reads as x0 and
eps is a function of the level (`ddpm_jax.tables.readings`), so no sampler mentions it.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np
from numpy.typing import DTypeLike, NDArray

from ddpm_jax._typing import AnyPredictionType
from ddpm_jax.tables.readings import Read, reading
from ddpm_jax.tables.refine import Refine
from ddpm_jax.tables.table import Table

Array: TypeAlias = NDArray[np.floating[Any]]


class Level(NamedTuple):
    """A point of a grid: the network's timestep, and x = alpha x0 + sigma eps.

    Attributes:
        timestep: the timestep passed to the network. Not read at an end point, usually -1 there.
        alpha: signal scale, >= 0.
        sigma: noise scale, >= 0.
    """

    timestep: float
    alpha: float
    sigma: float


def beta_between(level: Level, end: Level) -> float:
    """1 - alpha^2 / alpha'^2 from a variance-preserving level to a less noisy one.

    Uses the difference of the smaller squares, of sigma or of alpha, which loses fewer digits.
    """
    from_sigma = level.sigma**2 - end.sigma**2
    from_alpha = end.alpha**2 - level.alpha**2
    return (from_sigma if level.sigma < end.alpha else from_alpha) / end.alpha**2


class TableBuilder:
    """Collects rows in float64 and casts them once, in `build`.

    Args:
        registers: names of r_0, ..., r_{m-1}; the first is the sample.
        prediction_type: the meaning of the network's output; or, of a network whose input or output
            is something else, a function (alpha, sigma) -> Reading.
        refine: the refinement of the predicted x0, or None.

    A row gives the new value of each changed register as `{source: coefficient}`. Sources are the
    registers' names, "output", "x0" (refined if `refine` is given), "eps" (from the unrefined
    output), "refined_eps" ((x - alpha x0) / sigma with the x0 above; sigma must not be 0) and, for
    the sample, "z" (new unit noise). Other registers do not change.
    """

    def __init__(
        self,
        registers: Sequence[str],
        prediction_type: AnyPredictionType | Read,
        refine: Refine | None,
    ):
        self._registers = tuple(registers)
        self._read: Read = (
            prediction_type if callable(prediction_type) else partial(reading, prediction_type)
        )
        self._refine = refine
        names = ("timestep", "level", "in_scale", "mix", "to_x0", "noise_scale")
        self._columns: dict[str, list[Any]] = {name: [] for name in names}

    def row(
        self, timestep: float, alpha: float, sigma: float, **updates: Mapping[str, float]
    ) -> None:
        """Appends a network evaluation at a level, and the update after it."""
        names, sample = self._registers, self._registers[0]
        unknown = [name for name in updates if name not in names]
        if unknown:
            raise ValueError(f"no register is named {', '.join(unknown)}; registers: {names}")
        reading = self._read(alpha, sigma)
        units = np.eye(len(names) + 2)  # registers, output, refined x0
        x_and_output = units[[0, len(names)]]
        x0, eps = (np.array(coefs) @ x_and_output for coefs in (reading.x0, reading.eps))
        sources = dict(zip((*names, "output"), units, strict=False))
        sources |= {"eps": eps, "x0": x0 if self._refine is None else units[-1]}
        self._columns["timestep"].append(timestep)
        self._columns["level"].append((alpha, sigma))
        self._columns["in_scale"].append(reading.in_scale)
        self._columns["to_x0"].append(reading.x0)
        self._columns["noise_scale"].append(updates.get(sample, {}).get("z", 0.0))
        mix = np.zeros((len(names), len(names) + 2))
        for k, name in enumerate(names):
            update = updates.get(name, {name: 1.0})
            if "refined_eps" in update:
                update = _without_refined_eps(update, sample, alpha, sigma)
            for source, value in update.items():
                if (name, source) != (sample, "z"):
                    mix[k] += value * sources[source]
        self._columns["mix"].append(mix if self._refine is not None else mix[:, :-1])

    def build(
        self,
        init_scale: float,
        dtype: DTypeLike = np.float32,
        *,
        stochastic: bool = False,
        log_var: Sequence[tuple[float, float]] | None = None,
    ) -> Table:
        """The table, with NumPy arrays of `dtype` as leaves (`timestep` is always float32).

        Args:
            init_scale: standard deviation of the prior at the first row.
            dtype: float32, or float64 for the uncast table.
            stochastic: include the `noise_scale` column.
            log_var: bounds of a learned log variance, one pair for each row.
        """
        if np.dtype(dtype).name not in ("float32", "float64"):
            raise ValueError(f"a table's dtype must be float32 or float64, got {dtype!r}")
        with np.errstate(over="ignore"):  # what overflows is refused below
            written = {
                name: np.asarray(column, np.float64).astype(dtype)
                for name, column in self._columns.items()
            }
        endless = [name for name, column in written.items() if not np.all(np.isfinite(column))]
        if endless:
            raise ValueError(
                f"the table would have {' and '.join(endless)} that {np.dtype(dtype)} cannot hold: "
                "the config's noise levels are too large or too close to each other"
            )
        columns: dict[str, Array | None] = {**written}
        columns["timestep"] = np.asarray(self._columns["timestep"], np.float32)
        if not stochastic:
            columns["noise_scale"] = None
        if log_var is not None:
            columns["log_var"] = np.asarray(log_var, np.float64).astype(dtype)
        refine = jax.tree.map(partial(np.asarray, dtype=dtype), self._refine)
        return Table(**columns, init_scale=np.asarray(init_scale, dtype), refine=refine)


def _without_refined_eps(
    update: Mapping[str, float], sample: str, alpha: float, sigma: float
) -> dict[str, float]:
    """The same update in terms of x and x0."""
    slope = update["refined_eps"] / sigma
    rest = {source: value for source, value in update.items() if source != "refined_eps"}
    x0, x = rest.get("x0", 0.0) - slope * alpha, rest.get(sample, 0.0) + slope
    return rest | {"x0": x0, sample: x}
