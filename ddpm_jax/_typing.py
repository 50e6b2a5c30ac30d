"""Types that several rooms share."""

from typing import Any, Literal, TypeAlias

import jax

Leaf: TypeAlias = Any
"""A leaf of a pytree of numbers: a NumPy array on the host, a jax array or a tracer inside a
transformation. Its shape stands beside the field."""

PredictionType: TypeAlias = Literal["epsilon", "sample", "v_prediction"]
"""What the network's output is: the noise, the clean image, or v (arXiv:2202.00512)."""

TimestepSpacing: TypeAlias = Literal["leading", "trailing", "linspace", "quadratic"]
"""How a grid of timesteps is laid over 0..T-1; see `ddpm_jax.spacing`."""

Registers: TypeAlias = tuple[jax.Array, ...]
"""The image-shaped state of a sampler, each (B, H, W, C); register 0 is the sample."""
