r"""Writes tables, with named registers and readings of the network's output.

A sampler gives levels (alpha, sigma) and the new value of each register, in terms of registers,
`output`, `x0` and `eps`. With x = alpha x0 + sigma eps and h^2 = alpha^2 + sigma^2 the builder
adds, for every prediction type, the network's input x / h and the readings

    (1)  epsilon:       eps = output,     x0 = (x - sigma output) / alpha
    (2)  sample:        x0  = output,     eps = (x - alpha output) / sigma
    (3)  v_prediction:  x0  = (alpha / h^2) x - (sigma / h) output,
                        eps = (sigma / h^2) x + (alpha / h) output

(3) follows from v = (alpha eps - sigma x0) / h (Salimans and Ho 2022, arXiv:2202.00512, appendix
D). It holds for variance-preserving (h = 1) and variance-exploding (alpha = 1) methods.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np
from numpy.typing import DTypeLike, NDArray

from ddpm_jax._typing import PredictionType
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
        prediction_type: the meaning of the network's output.
        refine: the refinement of the predicted x0, or None.

    A row gives the new value of each changed register as `{source: coefficient}`. Sources are the
    registers' names, "output", "x0" (refined if `refine` is given), "eps" (from the unrefined
    output), "refined_eps" ((x - alpha x0) / sigma with the x0 above; sigma must not be 0) and, for
    the sample, "z" (new unit noise). Other registers do not change.
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
            raise ValueError(f"no register is named {', '.join(unknown)}; registers: {names}")
        x0, eps = readings(self._prediction_type, alpha, sigma, len(names))
        units = np.eye(len(names) + 2)  # registers, output, refined x0
        sources = dict(zip((*names, "output"), units, strict=False))
        sources |= {"eps": eps, "x0": x0 if self._refine is None else units[-1]}
        self._columns["timestep"].append(timestep)
        self._columns["level"].append((alpha, sigma))
        self._columns["in_scale"].append(1.0 / _norm(alpha, sigma))
        self._columns["to_x0"].append(x0[[0, len(names)]])
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


def _without_refined_eps(
    update: Mapping[str, float], sample: str, alpha: float, sigma: float
) -> dict[str, float]:
    """The same update in terms of x and x0."""
    slope = update["refined_eps"] / sigma
    rest = {source: value for source, value in update.items() if source != "refined_eps"}
    x0, x = rest.get("x0", 0.0) - slope * alpha, rest.get(sample, 0.0) + slope
    return rest | {"x0": x0, sample: x}


def _norm(alpha: float, sigma: float) -> float:
    """The norm h, exactly 1 if variance is preserved, so that rounding is not amplified later."""
    root = float(np.hypot(alpha, sigma))
    # With sqrt(alpha_bar) and sqrt(1 - alpha_bar), h differs from 1 by a few 2^-53 = 1.1e-16.
    return 1.0 if abs(root - 1.0) < 1e-14 else root


def readings(
    prediction_type: PredictionType, alpha: float, sigma: float, registers: int
) -> tuple[Array, Array]:
    """x0 and eps over the sources (registers, output, refined x0), equations (1) to (3)."""
    root = _norm(alpha, sigma)
    match prediction_type:
        case "epsilon":
            x0_coefs, eps_coefs = (1 / alpha, -sigma / alpha), (0.0, 1.0)
        case "sample":
            x0_coefs, eps_coefs = (0.0, 1.0), (1 / sigma, -alpha / sigma)
        case "v_prediction":
            x0_coefs, eps_coefs = (alpha / root**2, -sigma / root), (sigma / root**2, alpha / root)
    x0, eps = np.zeros((2, registers + 2))
    x0[[0, registers]], eps[[0, registers]] = x0_coefs, eps_coefs
    return x0, eps
