"""Between pictures and latents: the programs of an autoencoder."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ddpm_jax.guidance.known import put_back
from ddpm_jax.images import to_unit
from ddpm_jax.models import AutoencoderKL, Posterior


@partial(jax.jit, static_argnames="vae")
def decoded(
    vae: AutoencoderKL | None,
    params: Any,
    known: tuple[Float[Array, "k h w 1"], Float[Array, "k h w c"]] | None,
    latents: Any,
) -> Any:
    """Images in [0, 1], or latents without an autoencoder. `known` is the mask and the latents of
    the part of inpainted images that is known; they may have more rows.
    """
    if known is not None:
        mask, kept = known
        latents = put_back(latents, mask[: len(latents)], kept[: len(latents)])
    if vae is None:
        return latents
    variables = {"params": params}
    images: Any = vae.apply(variables, latents / vae.scaling_factor, method="decode")
    return to_unit(images)


@partial(jax.jit, static_argnames="vae")
def encode(
    vae: AutoencoderKL,
    params: Any,
    images: Float[Array, "k h w c"],
    rows: Int[Array, "b"],
    noise: Float[Array, "b h2 w2 c2"],
) -> Float[Array, "b h2 w2 c2"]:
    """A draw of latents for each row: of the image with this number.

    Args:
        vae: the autoencoder.
        params: its params.
        images: in [0, 1].
        rows: the image of each row.
        noise: of unit variance.
    """
    found: Any = vae.apply({"params": params}, 2 * images - 1, method="encode")
    posterior = Posterior(found.mean[rows], found.std[rows])
    return jnp.float32(vae.scaling_factor) * posterior.sample(noise)
