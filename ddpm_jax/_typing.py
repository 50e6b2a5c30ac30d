"""Types that several modules share."""

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import jax
import numpy as np
from jaxtyping import Num


def is_whole(value: object) -> bool:
    """Whether a value is a Python or NumPy integer. Bools are rejected."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """Whether a value is a real Python or NumPy number. Bools are rejected."""
    return is_whole(value) or isinstance(value, float | np.floating)


Size: TypeAlias = Any
"""The length of an axis: an int, or a symbol where `jax.export` leaves it open."""

Leaf: TypeAlias = Any
"""A leaf of a pytree of numbers: a NumPy array on the host, or a jax array or tracer inside a
transformation. The docstring of each field gives its shape."""

PredictionType: TypeAlias = Literal["epsilon", "sample", "v_prediction"]
"""The meaning of the network's output: the noise, the clean image, or v (arXiv:2202.00512)."""

AnyPredictionType: TypeAlias = Literal["epsilon", "sample", "v_prediction", "flow_prediction"]
"""The same, or the velocity eps - x0 of a straight path (arXiv:2210.02747)."""

TimestepSpacing: TypeAlias = Literal["leading", "trailing", "linspace", "quadratic"]
"""How a grid of timesteps is spaced in 0..T-1; see `ddpm_jax.tables.spacing`."""

Numbers: TypeAlias = Sequence[float] | Num[np.ndarray, "n"]
"""A custom grid of timesteps or noise levels, strictly descending."""

AnyArray: TypeAlias = jax.Array | np.ndarray
"""An array on the device or on the host."""

Registers: TypeAlias = tuple[AnyArray, ...]
"""The image-shaped state of a sampler, each (B, H, W, C); register 0 is the sample."""
