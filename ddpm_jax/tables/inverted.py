r"""Tables walked the other way: from images to the x_T that leads to them.

A deterministic row of one register goes down from x to x',

    (1)  x' = a x + b output(x, timestep)

and its inverse goes up. It evaluates the network at x', since x is not known yet:

    (2)  x = (x' - b output(x', timestep)) / a

So a run up and a run down meet again but for the change of the output between neighbors, which goes
to 0 with the number of steps. For DDIM this is the reversed ODE of Song et al. 2021,
arXiv:2010.02502, section 4.3, and for a network that predicts eps diffusers' DDIMInverseScheduler.
"""

# pyright: reportUnknownMemberType=false
# jax leaves parts of its types open.

from typing import Any

import numpy as np

from ddpm_jax.tables.table import Table


def ascends(table: Table) -> bool:
    """Whether a table goes up, from images to noise."""
    (alpha, sigma), (last_alpha, last_sigma) = np.asarray(table.level, np.float64)[[0, -1]]
    return bool(sigma * last_alpha < last_sigma * alpha)


def inverted(table: Table, dtype: Any = np.float32) -> Table:
    """The table that walks up; its first register is the image, and what it ends at is x_T.

    Args:
        table: a deterministic table of one register that does not clip, such as Euler's, or DDIM's
            with eta 0 and clip_sample False; best with `dtype=np.float64`.
        dtype: of the columns.

    Raises:
        ValueError: the table adds noise, has several registers, refines the predicted x0, or
            forgets x in a row, as the last one does if the network predicts x0.

    >>> import jax.numpy as jnp, numpy as np, ddpm_jax as dj
    >>> def denoise(params, x, timestep):
    ...     return params * x
    >>> table = dj.DDIMScheduler(clip_sample=False).table(100, dtype=np.float64)
    >>> x_T = dj.sample(denoise, jnp.float32(0.1), dj.inverted(table), jnp.ones((1, 2, 2, 1)))
    >>> x_0 = dj.sample(denoise, jnp.float32(0.1), table, x_T)
    >>> bool(abs(x_0 - 1).max() < 0.04)
    True
    """
    if table.noise_scale is not None or table.num_registers != 1:
        raise ValueError(
            "only a deterministic table of one register can be inverted, such as DDIM's with eta 0 "
            f"or Euler's; this one has {table.num_registers}"
            f"{'' if table.noise_scale is None else ' and adds noise'}"
        )
    if table.refine is not None:
        raise ValueError(
            "a table that clips or thresholds the predicted x0 has no inverse: set clip_sample and "
            "thresholding to False, for the run down too"
        )
    a, b = np.asarray(table.mix, np.float64)[:, 0].T  # (1)
    of_x, of_output = np.asarray(table.to_x0, np.float64).T
    if not np.all(np.abs(a) > 1e-12):
        raise ValueError(
            f"row {int(np.argmin(np.abs(a)))} does not depend on x, so it cannot be inverted: end "
            "the run above the data, or predict eps or v"
        )
    # x' = weight x0 + kept x, with x = alpha x0 + sigma eps, says the level of x'.
    weight = b / of_output
    kept = a - weight * of_x
    alpha, sigma = np.asarray(table.level, np.float64).T
    level = np.stack([weight + kept * alpha, kept * sigma], axis=1)
    last = np.hypot(*level[-1]) / np.hypot(alpha[-1], sigma[-1])
    in_scale = np.append(table.in_scale[1:], table.in_scale[-1] / last)
    columns: dict[str, Any] = {
        "level": level,
        "in_scale": in_scale,
        "mix": np.stack([1 / a, -b / a], axis=1)[:, None],  # (2)
        "to_x0": np.stack([of_x / a, of_output - of_x * b / a], axis=1),
    }
    return Table(
        timestep=np.asarray(table.timestep)[::-1].copy(),
        init_scale=np.asarray(np.hypot(*level[-1]), dtype),
        **{name: column[::-1].astype(dtype) for name, column in columns.items()},
    )
