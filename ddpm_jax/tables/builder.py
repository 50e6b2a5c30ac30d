r"""Writes tables: named registers, readings of the network's output, and rows back as text.

A sampler states levels (alpha, sigma) and what each register becomes, in terms of registers,
`output`, `x0` and `eps`. With x = alpha x0 + sigma eps and h^2 = alpha^2 + sigma^2 the builder
supplies, for every prediction type, the network's input x / h and the readings

    (1)  epsilon:       eps = output,     x0 = (x - sigma output) / alpha
    (2)  sample:        x0  = output,     eps = (x - alpha output) / sigma
    (3)  v_prediction:  x0  = (alpha / h^2) x - (sigma / h) output,
                        eps = (sigma / h^2) x + (alpha / h) output

(3) is v = (alpha eps - sigma x0) / h (Salimans and Ho 2022, arXiv:2202.00512, appendix D), for
variance-preserving (h = 1) and variance-exploding (alpha = 1) methods alike.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np
from numpy.typing import DTypeLike, NDArray

from ddpm_jax._typing import PredictionType
from ddpm_jax.tables.refine import Refine
from ddpm_jax.tables.table import Row, Table

Array: TypeAlias = NDArray[np.floating[Any]]


class Level(NamedTuple):
    """A point of a grid: what the network is told there, and x = alpha x0 + sigma eps.

    Attributes:
        timestep: what the network is told; not read at an end point, -1 by custom.
        alpha: signal scale, >= 0.
        sigma: noise scale, >= 0.
    """

    timestep: float
    alpha: float
    sigma: float


def beta_between(level: Level, end: Level) -> float:
    """1 - alpha^2 / alpha'^2 from a variance-preserving level to a less noisy one.

    Takes the difference of the smaller squares, sigma's or alpha's, which loses fewer digits.
    """
    of_sigma = level.sigma**2 - end.sigma**2
    of_alpha = end.alpha**2 - level.alpha**2
    return (of_sigma if level.sigma < end.alpha else of_alpha) / end.alpha**2


class TableBuilder:
    """Collects rows in float64 and casts them once, in `build`.

    Args:
        registers: names of r_0, ..., r_{m-1}; the first is the sample.
        prediction_type: what the network's output is.
        refine: what is done to the predicted x0, or None.

    A row gives, for each register that changes, its new value as `{source: coefficient}` over the
    registers' names, "output", "x0" (refined, where `refine` is given), "eps" (read from the
    output as it is) and, for the sample, "z" (fresh unit noise). A register that is not mentioned
    is kept.
    """

    def __init__(
        self, registers: Sequence[str], prediction_type: PredictionType, refine: Refine | None
    ):
        self._registers = tuple(registers)
        self._prediction_type: PredictionType = prediction_type
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
            raise ValueError(f"no register is called {', '.join(unknown)}; there are {names}")
        x0, eps = _readings(self._prediction_type, alpha, sigma, len(names))
        units = np.eye(len(names) + 2)  # registers, output, refined x0
        sources = dict(zip((*names, "output"), units, strict=False))
        sources |= {"eps": eps, "x0": x0 if self._refine is None else units[-1]}
        self._columns["timestep"].append(timestep)
        self._columns["level"].append((alpha, sigma))
        self._columns["in_scale"].append(1.0 / _spread(alpha, sigma))
        self._columns["to_x0"].append(x0[[0, len(names)]])
        self._columns["noise_scale"].append(updates.get(sample, {}).get("z", 0.0))
        mix = np.zeros((len(names), len(names) + 2))
        for k, name in enumerate(names):
            for source, value in updates.get(name, {name: 1.0}).items():
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
        """The table, its leaves NumPy arrays of `dtype` (`timestep` is float32 always).

        Args:
            init_scale: standard deviation of the prior at the first row.
            dtype: float32, or float64 for the uncast table.
            stochastic: keep the `noise_scale` column.
            log_var: bounds of a learned log variance, a pair a row.
        """
        if not np.issubdtype(dtype, np.floating):
            raise ValueError(f"a table's dtype must be float32 or float64, got {dtype!r}")
        columns: dict[str, Array | None] = {
            name: np.asarray(column, np.float64).astype(dtype)
            for name, column in self._columns.items()
        }
        columns["timestep"] = np.asarray(self._columns["timestep"], np.float32)
        if not stochastic:
            columns["noise_scale"] = None
        if log_var is not None:
            columns["log_var"] = np.asarray(log_var, np.float64).astype(dtype)
        refine = jax.tree.map(partial(np.asarray, dtype=dtype), self._refine)
        return Table(**columns, init_scale=np.asarray(init_scale, dtype), refine=refine)


def _spread(alpha: float, sigma: float) -> float:
    """h, exactly 1 where variance is preserved, so that rounding is not amplified later."""
    root = float(np.hypot(alpha, sigma))
    return 1.0 if abs(root - 1.0) < 1e-14 else root


def _readings(
    prediction_type: PredictionType, alpha: float, sigma: float, registers: int
) -> tuple[Array, Array]:
    """x0 and eps over the sources (registers, output, refined x0), equations (1) to (3)."""
    root = _spread(alpha, sigma)
    match prediction_type:
        case "epsilon":
            of_x0, of_eps = (1 / alpha, -sigma / alpha), (0.0, 1.0)
        case "sample":
            of_x0, of_eps = (0.0, 1.0), (1 / sigma, -alpha / sigma)
        case "v_prediction":
            of_x0, of_eps = (alpha / root**2, -sigma / root), (sigma / root**2, alpha / root)
    x0, eps = np.zeros((2, registers + 2))
    x0[[0, registers]], eps[[0, registers]] = of_x0, of_eps
    return x0, eps


def describe(table: Table) -> str:
    """A table as text, a line per row: `x <- 0.993 x - 0.021 output + 0.01 z`.

    Registers beyond the sample are called r1, r2, ...; a register that keeps its value is left
    out. `z` is fresh unit noise.

    >>> import ddpm_jax as dj
    >>> print(dj.describe(dj.DDIMScheduler(clip_sample=False).table(2)))
    2 network evaluations, 1 register, deterministic, x starts with standard deviation 1
    0  t 500       x <- 3.585 x - 3.433 output
    1  t 0         x <- 1 x - 0.01 output
    """
    count, registers = len(table), table.num_registers
    noise = "deterministic" if table.noise_scale is None else "stochastic"
    head = (
        f"{count} network evaluations, {registers} register{'s' if registers > 1 else ''}, "
        f"{noise}, x starts with standard deviation {float(table.init_scale):.4g}"
    )
    if table.refine is not None:
        head += f", x0 refined by {_refine_text(table.refine)}"
    width = len(str(count - 1))
    return "\n".join(
        [head, *(f"{i:{width}d}  {_row_text(row)}" for i, row in enumerate(table))]
    )  # fmt: skip


def _refine_text(refine: Refine) -> str:
    numbers = ", ".join(f"{k}={float(v):g}" for k, v in vars(refine).items())
    return f"{type(refine).__name__}({numbers})"


def _row_text(row: Row) -> str:
    registers = row.mix.shape[0]
    names = ("x", *(f"r{k}" for k in range(1, registers)))
    sources = (*names, "output", "x0")
    updates: list[str] = []
    for k, name in enumerate(names):
        terms = [(float(value), source) for value, source in zip(row.mix[k], sources, strict=False)]
        if k == 0 and row.noise_scale is not None:
            terms.append((float(row.noise_scale), "z" if row.log_var is None else _std_text(row)))
        text = _sum_text(terms)
        if text != name:
            updates.append(f"{name} <- {text}")
    scale = "" if row.in_scale == 1 else f", input {float(row.in_scale):.4g} x"
    return f"t {float(row.timestep):<8.6g}{scale}  {'; '.join(updates) or 'x kept'}"


def _std_text(row: Row) -> str:
    low, high = map(float, row.log_var)
    return f"exp(lerp({low:.3g}, {high:.3g}) / 2) z"


def _sum_text(terms: Sequence[tuple[float, str]]) -> str:
    """`1 x`, `0 y` and `-2 z` as "x - 2 z"."""
    text = ""
    for value, name in terms:
        if value == 0:
            continue
        sign = (" - " if value < 0 else " + ") if text else ("-" if value < 0 else "")
        text += sign + (name if abs(value) == 1 else f"{abs(value):.4g} {name}")
    return text or "0"
