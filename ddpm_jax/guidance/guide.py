r"""Guides: they change what a network answers, at every row of a run.

With x = alpha x0 + sigma eps at a row, a guide that knows the gradient of a logarithm of a
likelihood, log p(y | x), moves the predicted x0 by Tweedie's formula to

    (1)  x0 + (sigma^2 / alpha) grad_x log p(y | x),

the mean of x0 given x and y. The network's output is changed so that it reads as the moved x0, and
then eps moves along. So every table runs with every guide that moves x0.

Reference: Song et al. 2021, arXiv:2011.13456, section 5, for the score of a conditional
distribution.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from ddpm_jax._typing import AnyArray
from ddpm_jax.tables.table import Row

Denoise = Callable[..., Array]
Params = Mapping[str, Any]
Images = Float[Array, "b h w c"]
Output = Float[Array, "b h w d"]
"""Of a network; d is c, or 2 c with a learned variance."""


@dataclass(frozen=True)
class Guide:
    """What guides a run: a kind, which is part of the program, and values, which are data.

    For pure functions, `guide.around(denoise, params)`; for a pipeline's call, `guide=`.

    Attributes:
        kind: from a `denoise` to the guided one; its class is compared, so guides of one kind share
            a compiled program.
        values: any pytree by name: measurements, weights of a classifier, a scale.
    """

    kind: "Callable[[Denoise], Guiding]"
    values: Mapping[str, Any]

    def around(self, denoise: Denoise, params: Any) -> "tuple[Guiding, dict[str, Any]]":
        """The guided `denoise`, and its params, for `ddpm_jax.sample`."""
        return self.kind(denoise), {"inner": params, **self.values}


@dataclass(frozen=True)
class Guiding(ABC):
    """Base of the guided `denoise`. Its params are {"inner": those of the inner one, and values}.

    Attributes:
        denoise: the inner one; it may be guided too.
    """

    denoise: Denoise

    def __call__(self, params: Params, x: Images, timestep: Float[Array, ""]) -> Output:
        """The output of the inner `denoise`; a run calls `at_row`."""
        return self.denoise(params["inner"], x, timestep)

    @abstractmethod
    def at_row(self, params: Params, row: Row, x: Images) -> Output:
        """The guided output at a row; x is register 0."""

    def predicted(self, params: Params, row: Row, x: Images) -> tuple[Images, Output]:
        """The x0 that the inner `denoise` predicts, and its output; x0 is not refined."""
        output = evaluated(self.denoise, params["inner"], row, x)
        weights = row.to_x0.astype(x.dtype)
        return weights[0] * x + weights[1] * output[..., : x.shape[-1]].astype(x.dtype), output


def evaluated(denoise: Denoise, params: Any, row: Row, x: Float[AnyArray, "b h w c"]) -> Output:
    """The output of a `denoise`, guided or not, at a row; x is register 0."""
    at_row = getattr(denoise, "at_row", None)
    if at_row is not None:
        return at_row(params, row, x)
    return denoise(params, row.in_scale.astype(x.dtype) * x, row.timestep)


def moved(row: Row, output: Output, change: Images) -> Output:
    """The output that reads as the predicted x0 plus a change."""
    return added(output, change / row.to_x0[1])


def added(output: Output, change: Images) -> Output:
    """The output plus a change of its prediction; a learned variance stays."""
    channels = change.shape[-1]
    first = output[..., :channels] + change.astype(output.dtype)
    return jnp.concatenate([first, output[..., channels:]], axis=-1)


def by_tweedie(row: Row, gradient: Images) -> Images:
    """The change of x0 in (1); none where no signal is left."""
    alpha, sigma = (jnp.asarray(one, gradient.dtype) for one in row.level)
    factor = jnp.where(alpha > 0, sigma**2 / jnp.where(alpha > 0, alpha, 1), 0)
    return factor * gradient
