"""Image generation: run a table from inputs on the devices, and decode its samples.

    denoise   the network, with guidance if any
    inputs    x_T, keys and conditions, on the devices
    decode    samples to images in [0, 1]: a rescaling of [-1, 1], or a decoder of latents

The pipelines, the command line and the sample grids of training all call `generate`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Shaped

from ddpm_jax._typing import AnyArray, Registers
from ddpm_jax.guidance.classifier_free import guided
from ddpm_jax.images import SIGNED, UNIT
from ddpm_jax.models import Model
from ddpm_jax.pipelines.inputs import Inputs
from ddpm_jax.sampling import segments
from ddpm_jax.tables.table import Table

if TYPE_CHECKING:
    from tqdm import tqdm

Decode: TypeAlias = Callable[[Float[AnyArray, "b h w c"]], Float[Array, "b h2 w2 c2"]]

decode_pixels: Decode = jax.jit(SIGNED.to_unit)
"""For networks in pixel space: [-1, 1] to [0, 1], clipped."""
decode_unit: Decode = jax.jit(UNIT.to_unit)
"""For those whose pixels are in [0, 1]: clipped."""
DECODERS = {SIGNED: decode_pixels, UNIT: decode_unit}

Preview: TypeAlias = Callable[[int, Float[np.ndarray, "b h w c"]], None]
"""Called with the number of evaluations so far and the predicted clean images in [0, 1]."""


@dataclass(frozen=True)
class Network:
    """network(params, x, timestep, condition) of a model, for `guided` and `Unguided`.

    Its params are {"model": the model's params, "channels": (B, H, W, c) channels that the model
    takes beside x, if any}. Networks of equal models are equal, so all pipelines with one config
    share compiled programs.

    Attributes:
        model: the model.
        cut: its params are cut over devices. Each evaluation puts them together anew; otherwise XLA
            does so once before the loop, and every device holds all of them.
    """

    model: Model
    cut: bool = False

    def __call__(
        self,
        params: Mapping[str, Any],
        x: Float[Array, "b h w c"],
        timestep: Float[Array, ""],
        condition: Shaped[Array, "b ..."] | None,
    ) -> Float[Array, "b h w d"]:
        """The model's output."""
        if (channels := params.get("channels")) is not None:
            # Guidance evaluates every image twice.
            channels = jnp.concatenate([channels] * (len(x) // len(channels)))
            x = jnp.concatenate([x, channels.astype(x.dtype)], axis=-1)
        given = () if condition is None else (condition,)
        weights = params["model"]
        if self.cut:  # the barrier ties them to x, which each evaluation changes
            weights, x = lax.optimization_barrier((weights, x))
        output = self.model.apply({"params": weights}, x, timestep, *given)
        return cast(Array, output)  # apply returns a pair only for mutable collections


@dataclass(frozen=True)
class Unguided:
    """`denoise` of a network without guidance: its params are {"network": params, "context":
    (B, ...) conditions, if any}.
    """

    network: Network

    def __call__(
        self, params: Mapping[str, Any], x: Float[Array, "b h w c"], timestep: Float[Array, ""]
    ) -> Float[Array, "b h w d"]:
        """The network's output."""
        return self.network(params["network"], x, timestep, params.get("context"))


def with_conditions(
    model: Model,
    params: Any,
    given: Mapping[str, Shaped[Array, "b ..."]],
    guidance_scale: float = 1.0,
    interval: Float[np.ndarray, "2"] | None = None,
) -> tuple[Callable[..., Array], dict[str, Any]]:
    """`denoise` of a model and its params, for the conditions of `Inputs`.

    Up to a scale of 1 there is no guidance, and the program is that of the network alone. With
    guidance it is one program whether there is an interval or not.
    """
    conditions, called = dict(given), Network(model, cut=is_cut(params))
    network = {"model": params, "channels": conditions.pop("channels", None)}
    if guidance_scale <= 1 or "context" not in conditions:
        conditions.pop("negative", None)
        return Unguided(called), {"network": network, **conditions}
    assert "negative" in conditions
    scale = jnp.float32(guidance_scale)
    limits = jnp.array([-jnp.inf, jnp.inf] if interval is None else interval, jnp.float32)
    guidance = {"scale": scale, "interval": limits}
    return guided(called), {"network": network, **conditions, **guidance}


def is_cut(params: Any) -> bool:
    """Whether no device has all params. Arrays in a compiled function count as whole."""
    return any(
        not leaf.sharding.is_fully_replicated
        for leaf in jax.tree.leaves(params)
        if isinstance(leaf, jax.Array) and not isinstance(leaf, jax.core.Tracer)
    )


def moving(bar: "tqdm[Any]") -> Callable[[float], None]:
    """`advanced` for a bar. It says "compiling" up to the first evaluation, which takes no part in
    the rate.
    """
    bar.set_description("compiling")
    compiling = not bar.disable

    def advanced(evaluations: float) -> None:
        nonlocal compiling
        if compiling:
            compiling = False
            bar.set_description()
            bar.unpause()  # the clock starts now
            bar.initial += evaluations
        if not bar.disable:  # parts of images add up to a little more, of which tqdm would warn
            bar.update(min(evaluations, bar.total - bar.n))

    return advanced


def generate(
    denoise: Callable[..., Array],
    params: Any,
    table: Table,
    inputs: Inputs,
    decode: Decode = decode_pixels,
    *,
    advanced: Callable[[int], object] | None = None,
    preview: Preview | None = None,
    preview_every: int = 1,
) -> Float[Array, "b h w c"]:
    """Runs a table and decodes its samples.

    Args:
        denoise: as in `ddpm_jax.sample`, static.
        params: its first argument, any pytree.
        table: a scheduler's table.
        inputs: from `make_inputs`.
        decode: converts samples to images.
        advanced: called during the run with the number of evaluations since the last call, such as
            the `update` of a progress bar.
        preview: called with the predicted images after every `preview_every` evaluations and after
            the last one.
        preview_every: see `preview`.

    Returns:
        (B, H, W, C) images with B = `inputs.count`.
    """
    total, before = len(table), 0
    registers: Registers = (inputs.x_T,)
    for done, registers in segments.run(
        denoise,
        params,
        table if preview is None else segments.with_preview(table),
        inputs.x_T,
        inputs.keys,
        every=None if preview is None else preview_every,
        place=inputs.place,
    ):
        if advanced is not None:
            advanced(done - before)
        before = done
        if preview is not None and (done % preview_every == 0 or done == total):
            preview(done, np.asarray(decode(registers[-1][: inputs.count])))
    return decode(registers[0][: inputs.count])
