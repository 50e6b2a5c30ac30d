"""Small functions as networks, defined once, because `denoise` is compared by identity."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

SHAPE = (4, 3, 2)  # (H, W, C) of one image

PARAMS = {
    "scale": np.float32(0.7),
    "shift": np.linspace(-1, 1, 24, dtype=np.float32).reshape(SHAPE),
}


def denoise(params: dict, x: Array, timestep: Array) -> Array:
    """Bounded and nonlinear; depends on the timestep and on the position in the image."""
    phase = jnp.asarray(timestep, x.dtype) / 500
    shift = jnp.expand_dims(jnp.asarray(params["shift"], x.dtype), 0)
    return jnp.asarray(params["scale"], x.dtype) * jnp.sin(x + shift + phase)


def denoise_learned(params: dict, x: Array, timestep: Array) -> Array:
    """As `denoise`, with a second half of channels."""
    output = denoise(params, x, timestep)
    return jnp.concatenate([output, jnp.cos(output + x)], axis=-1)
