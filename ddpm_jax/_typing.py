"""Types that several rooms share."""

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import jax
import numpy as np
from jaxtyping import Num


def is_whole(value: object) -> bool:
    """Whether a value is a whole number, Python's or NumPy's; True and False are none."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """Whether a value is a real number, Python's or NumPy's; True and False are none."""
    return is_whole(value) or isinstance(value, float | np.floating)


Leaf: TypeAlias = Any
"""A leaf of a pytree of numbers: a NumPy array on the host, a jax array or a tracer inside a
transformation. Its shape stands beside the field."""

PredictionType: TypeAlias = Literal["epsilon", "sample", "v_prediction"]
"""What the network's output is: the noise, the clean image, or v (arXiv:2202.00512)."""

TimestepSpacing: TypeAlias = Literal["leading", "trailing", "linspace", "quadratic"]
"""How a grid of timesteps is laid over 0..T-1; see `ddpm_jax.tables.spacing`."""

Timesteps: TypeAlias = Sequence[float] | Num[np.ndarray, "n"]
"""A grid of timesteps that the user chose, strictly descending."""

AnyArray: TypeAlias = jax.Array | np.ndarray
"""An array of the device or of the host."""

Registers: TypeAlias = tuple[AnyArray, ...]
"""The image-shaped state of a sampler, each (B, H, W, C); register 0 is the sample."""
