"""The inputs of a UNet, checked by shape and dtype before anything is computed."""

from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
from jax.typing import ArrayLike

from ddpm_jax._typing import Size
from ddpm_jax.hub.config import Config
from ddpm_jax.models import checks
from ddpm_jax.models.unet_2d.parts import embedding_width


def check_inputs(
    config: Config, x: Any, timestep: ArrayLike, class_labels: ArrayLike | None
) -> None:
    """Raises one ValueError that lists every fault of a call."""
    found = [*_image(config, x)]
    if not found:
        batch = jnp.shape(x)[0]
        found = [*checks.timestep(batch, timestep), *_labels(config, batch, class_labels)]
    checks.refuse(found)


def _image(config: Config, x: Any) -> Iterator[str]:
    if found := list(checks.image(x, config.in_channels)):
        yield from found
        return
    halvings, sides = len(config.block_out_channels) - 1, jnp.shape(x)[1:3]
    if any(side % 2**halvings or side == 0 for side in sides):
        yield (
            f"height and width of x must be multiples of {2**halvings}, because this model halves "
            f"them {halvings} times, got {sides[0]} x {sides[1]}"
        )


def _labels(config: Config, batch: Size, labels: ArrayLike | None) -> Iterator[str]:
    kind = config.class_embed_type
    if kind is None and config.num_class_embeds is None:
        if labels is not None:
            yield "class_labels were given, but this model has no class embedding"
        return
    if labels is None:
        yield "class_labels are missing: this model is class-conditional"
        return
    shape = (batch, embedding_width(config)) if kind == "identity" else (batch,)
    if jnp.shape(labels) != shape:
        yield f"class_labels must be of shape {shape}, got shape {jnp.shape(labels)}"
    if kind is None and not jnp.issubdtype(jnp.result_type(labels), jnp.integer):
        yield f"class_labels must be integers, got {jnp.result_type(labels)}"
