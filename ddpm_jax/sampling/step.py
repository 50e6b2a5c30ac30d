"""One row of a table: the predicted x0, and the update of the registers.

Both are pure functions of one row and arrays. `step` takes its noise as an argument.
"""

from functools import reduce
from operator import add

import jax.numpy as jnp

from ddpm_jax._typing import AnyArray, Leaf, Registers
from ddpm_jax.sampling.forward import check_images
from ddpm_jax.sampling.keys import Images
from ddpm_jax.tables.table import Row


def predict_x0(row: Row, registers: Registers, output: AnyArray) -> Images:
    """The clean image predicted by the network's output, refined if the row has a refinement.

    Args:
        row: a row of the table.
        registers: the table's registers, each (B, H, W, C).
        output: (B, H, W, C), or (B, H, W, 2C) with a learned variance in the second half.

    >>> import jax.numpy as jnp, ddpm_jax as dj
    >>> row = dj.DDIMScheduler(prediction_type="sample").table(5).row(0)
    >>> x, output = jnp.zeros((1, 2, 2, 1)), jnp.full((1, 2, 2, 1), 1.5)
    >>> float(dj.predict_x0(row, (x,), output).max())  # clipped
    1.0
    """
    x = registers[0]
    prediction, _ = _split(row, x, output)
    to_x0 = row.to_x0.astype(x.dtype)
    x0 = to_x0[0] * x + to_x0[1] * prediction
    return x0 if row.refine is None else row.refine(x0)


def step(
    row: Row, registers: Registers, output: AnyArray, noise: AnyArray | None = None
) -> Registers:
    """One row's update, in the dtype of `registers[0]`.

    Args:
        row: a row of the table.
        registers: the table's registers, each (B, H, W, C).
        output: (B, H, W, C) network output. With twice the channels the first half is the
            prediction, and rows with `log_var` read the second (arXiv:2102.09672, eq. 15).
        noise: (B, H, W, C) unit noise; ignored if the row has no `noise_scale`.

    Returns:
        The new registers.

    Raises:
        ValueError: noise is missing, shapes do not match, or a learned variance is missing.

    >>> import jax.numpy as jnp, ddpm_jax as dj
    >>> table = dj.DDIMScheduler(prediction_type="sample").table(5)
    >>> x, output = jnp.zeros((1, 2, 2, 1)), jnp.full((1, 2, 2, 1), 0.25)
    >>> (x,) = dj.step(table.row(4), (x,), output)  # the last row ends at the predicted x0
    >>> float(x.max())
    0.25
    """
    x = registers[0]
    check_images(x)
    prediction, log_std = _split(row, x, output)
    mix = row.mix.astype(x.dtype)
    if mix.shape[0] != len(registers):
        raise ValueError(f"the row mixes {mix.shape[0]} registers, got {len(registers)}")
    sources = (*registers, prediction)
    if row.refine is not None:
        sources = (*sources, predict_x0(row, registers, output))
    mixed = _mixed(mix, sources)
    if row.noise_scale is None:
        return tuple(mixed)
    if noise is None or noise.shape != x.shape:
        got = "None" if noise is None else f"shape {noise.shape}"
        raise ValueError(f"this row adds noise: it needs unit noise of shape {x.shape}, got {got}")
    std = row.noise_scale.astype(x.dtype)
    if log_std is not None:
        std = std * jnp.exp(log_std)
    return (mixed[0] + std * noise.astype(x.dtype), *mixed[1:])


def _mixed(mix: Leaf, sources: Registers) -> list[AnyArray]:
    """Equation (3) of `ddpm_jax.tables.table` for all registers at once, as multiply-adds.

    One for each source, so a table of many registers compiles as fast as one of few.
    """
    weights = mix.reshape(*mix.shape, *(1,) * sources[0].ndim)
    total = reduce(add, (weights[:, j] * source[None] for j, source in enumerate(sources)))
    return [total[k] for k in range(mix.shape[0])]


def _split(row: Row, x: AnyArray, output: AnyArray) -> tuple[AnyArray, AnyArray | None]:
    """The prediction, and the log standard deviation if the row reads a learned variance."""
    channels = x.shape[-1]
    if output.shape[:-1] != x.shape[:-1] or output.shape[-1] not in (channels, 2 * channels):
        raise ValueError(
            f"the network's output must have shape {x.shape}, or twice the channels with a "
            f"learned variance, got {output.shape}"
        )
    output = output.astype(x.dtype)
    if row.log_var is None:
        return output[..., :channels], None
    if output.shape[-1] != 2 * channels:
        raise ValueError(
            f"a learned variance needs an output of {2 * channels} channels, got {output.shape[-1]}"
        )
    low, high = row.log_var.astype(x.dtype)[0], row.log_var.astype(x.dtype)[1]
    share = (output[..., channels:] + 1) / 2  # [-1, 1] spans the bounds
    return output[..., :channels], (low + share * (high - low)) / 2
