r"""The space of deterministic samplers of n evaluations, in variables that are easy to learn.

A consistent table, one that keeps constant (x0, eps), is for row i = 0, ..., n-1

    (1)  x <- (sigma' / sigma) x + (alpha' - alpha sigma' / sigma) sum_{k <= i} w_ik x0_{i-k}

where x0_j is what evaluation j predicts, and sum_k w_ik = 1. DDIM, PLMS, DPM-Solver++, UniPC, DEIS
and LMS are points of this space: their grid, and a lower triangle of numbers w. Learned are

    (2)  the grid: log(sigma / alpha) falls from the first level by shares of a whole, the softmax
         of (logarithms of the shares at the start + `gaps`)
    (3)  the timestep that the network is told: that of log(sigma / alpha) + `shift`
    (4)  its input: exp(`scale`) times what the level asks for
    (5)  w = theory of the grid + (w - theory) at the start + `weights`, the theory being
         DPM-Solver++(2M), Lu et al. 2022, arXiv:2211.01095, Algorithm 2

All variables are 0 at the start, and change a sampler by about as much as themselves. In (1) x0 is
refined if the start refines it: then eps is read from the refined x0 too.

References: Shaul et al. 2024, arXiv:2403.01329 (samplers as points of one space); Tong et al. 2024,
arXiv:2405.15506 (levels, and the timesteps of levels, that are learned).
"""

# pyright: reportUnknownMemberType=false
# jax leaves parts of its types open.

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ddpm_jax._typing import AnyPredictionType, Leaf
from ddpm_jax.tables.readings import x0_of
from ddpm_jax.tables.refine import Refine
from ddpm_jax.tables.table import Table

Geometry: TypeAlias = Literal["variance preserving", "variance exploding", "straight"]
"""How alpha follows from sigma / alpha: alpha^2 + sigma^2 = 1, alpha = 1, or alpha + sigma = 1."""

CLOSE = 1e-4
"""Relative; what float32 tables agree to with the numbers of their level."""
ROOM = 0.5
"""A grid that ends at the data may go this far below the last levels, as a factor."""


class Variables(NamedTuple):
    """What is learned; see the equations of this module. All 0 at the start.

    Attributes:
        gaps: (n,) equation (2); the last share is left below the grid.
        shift: (n,) equation (3).
        scale: (n,) equation (4).
        weights: (n, n) equation (5), [i, k]; read where k <= i.
    """

    gaps: Float[Array, "n"]
    shift: Float[Array, "n"]
    scale: Float[Array, "n"]
    weights: Float[Array, "n n"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Space:
    """The samplers around a start. Made by `space_of`.

    Attributes:
        first: () log(sigma / alpha) of the first row.
        shares: (n,) of the way from there to `first - whole`, summing to 1.
        whole: () the way.
        end: (2,) alpha and sigma where a run ends.
        excess: (n, n) w - theory at the start, equation (5).
        told: (2, k) log(sigma / alpha), ascending, and their timesteps.
        init_scale: () of the start.
        refine: of the start.
        geometry: of the levels.
        prediction_type: how the output reads.
        unit_input: whether the network's input has unit variance; else it is x itself.
        ends_at_data: whether sigma is 0 at the end.
    """

    first: Leaf
    shares: Leaf
    whole: Leaf
    end: Leaf
    excess: Leaf
    told: Leaf
    init_scale: Leaf
    refine: Refine | None
    geometry: Geometry = field(metadata={"static": True})
    prediction_type: AnyPredictionType = field(metadata={"static": True})
    unit_input: bool = field(metadata={"static": True})
    ends_at_data: bool = field(metadata={"static": True})

    def zeros(self) -> Variables:
        """The variables of the start."""
        n = self.shares.shape[0]
        return Variables(jnp.zeros(n), jnp.zeros(n), jnp.zeros(n), jnp.zeros((n, n)))

    def table(self, variables: Variables) -> Table:
        """Equations (1) to (5); works on tracers."""
        ratio = self._log_ratios(variables.gaps)
        alpha, sigma = _level(self.geometry, jnp.exp(ratio))
        next_alpha = jnp.append(alpha[1:], self.end[0])
        next_sigma = jnp.append(sigma[1:], self.end[1])
        h = jnp.hypot(alpha, sigma)
        to_x0 = jnp.stack(x0_of(self.prediction_type, alpha, sigma, h), axis=-1)
        weights = _theory(self._steps(ratio)) + self.excess + variables.weights
        kept = next_sigma / sigma
        gain = next_alpha - alpha * kept
        in_scale = jnp.exp(variables.scale) / (h if self.unit_input else 1.0)
        return Table(
            timestep=jnp.interp(ratio + variables.shift, *self.told),
            level=jnp.stack([alpha, sigma], axis=-1),
            in_scale=in_scale,
            mix=_mix(kept, gain[:, None] * weights, None if self.refine is not None else to_x0),
            to_x0=to_x0,
            init_scale=self.init_scale,
            refine=self.refine,
        )

    def _log_ratios(self, gaps: Float[Array, "n"]) -> Float[Array, "n"]:
        """Equation (2)."""
        shares = jax.nn.softmax(jnp.log(self.shares) + gaps)
        return self.first - self.whole * jnp.append(0.0, jnp.cumsum(shares[:-1]))

    def _steps(self, ratio: Float[Array, "n"]) -> Float[Array, "n"]:
        """Each row's step in log(alpha / sigma); that to the data is 0 here: it has no theory."""
        last = 0.0 if self.ends_at_data else ratio[-1] - jnp.log(self.end[1] / self.end[0])
        return jnp.append(ratio[:-1] - ratio[1:], last)


@jax.jit
def table_of(space: Space, variables: Variables) -> Table:
    """`Space.table`, compiled."""
    return space.table(variables)


def space_of(start: Table, teacher: Table) -> Space:
    """The space around a start.

    Args:
        start: a deterministic table whose levels descend strictly, one row a step.
        teacher: any other table of the same network: it says more of which timestep belongs to
            which level.

    Raises:
        ValueError: a start that is stochastic, whose levels do not descend strictly, or whose
            levels and readings are of no kind known here.
    """
    start, teacher = (jax.tree.map(np.asarray, table) for table in (start, teacher))
    if start.noise_scale is not None and np.any(start.noise_scale):
        raise ValueError("start must be deterministic: a learned table has no noise")
    level = np.asarray(start.level, np.float64)
    ratio = np.log(level[:, 1] / level[:, 0])
    past, end = _triangle(start)
    ends_at_data = bool(end[1] == 0)
    below = -np.inf if ends_at_data else np.log(end[1] / end[0])
    if not np.all(np.diff(np.append(ratio, below)) < -CLOSE):
        raise ValueError(
            "the levels of start must descend strictly, to their end, one row a step, as those of "
            f"DDIM and DPM-Solver++; got sigma / alpha {np.exp([*ratio, below]).round(4).tolist()}"
        )
    told = _told(start, teacher)
    bottom = told[0, 0] + np.log(ROOM) if ends_at_data else below
    steps = -np.diff(np.append(ratio, bottom))
    kept = np.append(level[1:, 1], end[1]) / level[:, 1]
    gain = np.append(level[1:, 0], end[0]) - level[:, 0] * kept
    theory = np.asarray(_theory(jnp.asarray([*steps[:-1], 0.0 if ends_at_data else steps[-1]])))
    geometry, prediction_type = _geometry(level), _prediction_type(start)
    norm = np.hypot(*level.T)
    unit_input = bool(np.allclose(start.in_scale * norm, 1, rtol=CLOSE))
    if not unit_input and not np.allclose(start.in_scale, 1, rtol=CLOSE):
        raise ValueError(f"the input scales of start are of no known kind: {start.in_scale}")
    whole = ratio[0] - bottom
    return Space(
        first=np.float32(ratio[0]),
        shares=np.float32(steps / whole),
        whole=np.float32(whole),
        end=np.float32(end),
        excess=np.float32(past / gain[:, None] - theory),
        told=np.float32(told),
        init_scale=np.float32(start.init_scale),
        refine=start.refine,
        geometry=geometry,
        prediction_type=prediction_type,
        unit_input=unit_input,
        ends_at_data=ends_at_data,
    )


def _triangle(table: Table) -> tuple[np.ndarray, np.ndarray]:
    """The coefficients of x0_i, x0_{i-1}, ... in (1), and the end level.

    Every register is a sum over (x_T, x0_0, ..., x0_{n-1}); the rows are run on these sums.
    """
    n, m = len(table), table.num_registers
    basis = np.eye(n + 1)
    registers = np.zeros((m, n + 1))
    registers[0, 0] = 1.0
    level, mix = np.asarray(table.level, np.float64), np.asarray(table.mix, np.float64)
    to_x0 = np.asarray(table.to_x0, np.float64)
    sigma_T = level[0, 1]
    past, kept = np.zeros((n, n)), np.zeros(n)
    for i in range(n):
        x0 = basis[i + 1]
        output = (x0 - to_x0[i, 0] * registers[0]) / to_x0[i, 1]
        sources = np.stack([*registers, output, *([] if table.refine is None else [x0])])
        before, registers = registers[0], mix[i] @ sources
        kept[i] = registers[0, 0] / before[0]
        past[i, : i + 1] = (registers[0] - kept[i] * before)[i + 1 : 0 : -1]
    wanted = level[1:, 1] / level[:-1, 1]
    if not np.allclose(kept[:-1], wanted, rtol=1e-3, atol=1e-6):
        raise ValueError(
            "start does not keep eps where it and x0 are constant, so it is no point of the space: "
            f"x shrinks by {kept[:-1].round(5).tolist()}, sigma by {wanted.round(5).tolist()}"
        )
    end_sigma = registers[0, 0] * sigma_T
    end_alpha = registers[0, 1:].sum() + level[0, 0] * registers[0, 0]
    if abs(end_sigma) < CLOSE * level[-1, 1]:
        end_sigma = 0.0
    return past, np.array([end_alpha, end_sigma])


def _told(*tables: Table) -> np.ndarray:
    """log(sigma / alpha), ascending, and the timestep that a network is told there."""
    level = np.concatenate([np.asarray(table.level, np.float64) for table in tables])
    timestep = np.concatenate([table.timestep for table in tables])
    ratio, index = np.unique(np.log(level[:, 1] / level[:, 0]), return_index=True)
    return np.stack([ratio, timestep[index]])


def _geometry(level: np.ndarray) -> Geometry:
    ratio = level[:, 1] / level[:, 0]
    for geometry in get_args(Geometry):
        if np.allclose(np.stack(_level(geometry, ratio), -1), level, rtol=CLOSE, atol=1e-6):
            return geometry
    raise ValueError(f"the levels of start are of no known kind: {level.tolist()}")


def _level(geometry: Geometry, ratio: Any) -> tuple[Any, Any]:
    """(alpha, sigma) of sigma / alpha."""
    match geometry:
        case "variance preserving":
            alpha = (1 + ratio * ratio) ** -0.5
        case "variance exploding":
            alpha = ratio**0
        case "straight":
            alpha = 1 / (1 + ratio)
    return alpha, alpha * ratio


def _prediction_type(table: Table) -> AnyPredictionType:
    alpha, sigma = np.asarray(table.level, np.float64).T
    for kind in get_args(AnyPredictionType):
        expected = np.stack(x0_of(kind, alpha, sigma, np.hypot(alpha, sigma)), axis=-1)
        if np.allclose(table.to_x0, expected, rtol=CLOSE, atol=1e-6):
            return kind
    raise ValueError(
        "start reads the network's output in a way that is not one of "
        f"{', '.join(get_args(AnyPredictionType))}"
    )


def _theory(steps: Float[Array, "n"]) -> Float[Array, "n n"]:
    """DPM-Solver++(2M): w is 1 + 1 / (2 r) and -1 / (2 r), r the last step over this one.

    The first row has no past, and a step to the data is that of first order.
    """
    half = jnp.append(0.0, steps[1:] / steps[:-1]) / 2
    n = steps.shape[0]
    lags = jnp.zeros((n, n)).at[:, 0].set(1 + half)
    return lags if n == 1 else lags.at[:, 1].set(-half)


def _mix(
    kept: Float[Array, "n"], past: Float[Array, "n n"], to_x0: Float[Array, "n 2"] | None
) -> Float[Array, "n m s"]:
    """The rows of (1); register k > 0 holds the x0 of k evaluations ago.

    Args:
        kept: of x.
        past: of x0_i, x0_{i-1}, ...; read where k <= i.
        to_x0: folds x0 into x and the output; None if x0 is a column of its own.
    """
    n = past.shape[0]
    x0 = n if to_x0 is not None else n + 1  # the column of x0, or the output's
    mix = jnp.zeros((n, n, n + (1 if to_x0 is not None else 2)))
    mix = mix.at[:, 0, 0].set(kept).at[:, 0, 1:n].set(jnp.tril(past, -0)[:, 1:])
    mix = mix.at[:, 0, x0].set(past[:, 0])
    if n > 1:
        mix = mix.at[:, 1, x0].set(1.0)
        for k in range(2, n):
            mix = mix.at[:, k, k - 1].set(1.0)
    if to_x0 is None:
        return mix
    of_x0 = mix[:, :, x0]
    mix = mix.at[:, :, 0].add(of_x0 * to_x0[:, None, 0])
    return mix.at[:, :, x0].set(of_x0 * to_x0[:, None, 1])
