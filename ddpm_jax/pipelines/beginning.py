"""Where a run begins: from noise, from a noised image, or with a part of an image that is known.

References: Meng et al. 2022 (SDEdit), arXiv:2108.01073, for image to image; for inpainting
`ddpm_jax.guidance.known`.
"""

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Array, Float, Int, Key, Shaped

from ddpm_jax._typing import is_number
from ddpm_jax.pipelines.pictures import Pictures
from ddpm_jax.sampling.forward import eps_from_x0
from ddpm_jax.sampling.keys import noise, noised, prior
from ddpm_jax.schedulers import Scheduler
from ddpm_jax.tables.inverted import ascends, inverted
from ddpm_jax.tables.table import Table

Keys: TypeAlias = Key[Array, "b"]
Samples: TypeAlias = Float[Array, "b h w c"]


@dataclass(frozen=True, kw_only=True)
class Beginning:
    """What a pipeline makes of its images: where the loop begins, and what the network sees.

    Attributes:
        x_T: register 0 at row 0.
        channels: (B, h, w, c) that the network takes beside x; None: nothing.
        known: arrays of `WithKnown` by name; empty: nothing is known.
    """

    x_T: Samples
    channels: Float[Array, "b h w c2"] | None = None
    known: Mapping[str, Shaped[Array, "b ..."]] = field(default_factory=dict)


Begin: TypeAlias = Callable[[Table, Keys, Samples | None], Beginning]
"""From the table, the keys and the user's x_T."""


def first_noise(table: Table, keys: Keys, shape: tuple[int, ...]) -> Samples:
    """The prior. A table that begins at timestep 0 is warned of.

    Raises:
        ValueError: the table goes up: it begins with images.
    """
    if ascends(table):
        raise ValueError(
            "table goes up, from images to noise, and makes no images: give one that goes down"
        )
    if table.timestep[0] == 0:
        warnings.warn(
            "the run begins at timestep 0, where the network expects almost no noise: choose "
            'timestep_spacing="trailing" or more steps',
            stacklevel=5,
        )
    return prior(table, keys, shape)


def table_up(scheduler: Scheduler, steps: int, table: Table | None) -> Table:
    """The run from images to noise: a table's inverse, or the scheduler's run that goes up.

    Args:
        scheduler: its run is inverted, unless it goes up itself.
        steps: of its run.
        table: a run down in place of the scheduler's.

    Raises:
        ValueError: the run down adds noise, has a history or refines x0.
    """
    if table is not None:
        return inverted(table)
    if scheduler.ascends:
        return scheduler.table(steps)
    return inverted(scheduler.table(steps, dtype=np.float64))


def begin_inpainting(
    table: Table,
    keys: Keys,
    x0: Samples,
    mask: Float[Array, "b h w 1"],
    x_T: Samples | None,
    *,
    whole: bool,
    one_draw: bool,
) -> Beginning:
    """Inpainting with a network that does not see the mask.

    Args:
        table: the run.
        keys: one for each image.
        x0: the images.
        mask: 1 where they are made anew.
        x_T: the user's, or None.
        whole: begin with noise alone; otherwise with the noised images.
        one_draw: the known part has the noise of x_T at every row; otherwise each row's own.
    """
    shape = x0.shape[1:]
    begin = x_T
    if begin is None:
        begin = first_noise(table, keys, shape) if whole else noised(table, x0, keys)
    known: dict[str, Any] = {"mask": mask, "known": x0}
    if not one_draw:
        known["keys"] = keys
    elif x_T is None:
        known["noise"] = noise(keys, -1, shape)
    elif whole:
        known["noise"] = x_T / np.float32(table.init_scale)
    else:
        known["noise"] = eps_from_x0(x_T, x0, *table.level[0])
    return Beginning(x_T=begin, known=known)


def rows_of(found: Pictures, count: int) -> Int[np.ndarray, "b"]:
    """The picture of each row: all rows of one picture are neighbors."""
    return np.arange(count) * len(found.values) // count


def skipped(steps: int, strength: float) -> int:
    """How many of the first steps a strength leaves out.

    Raises:
        ValueError: the strength is outside (0, 1], or leaves no step.
    """
    strength = checked_strength(strength)
    # Rounded first: 50 * 0.58 is 28.999999999999996.
    run = math.floor(round(steps * strength, 6))
    if steps >= 1 and run < 1:
        raise ValueError(f"strength {strength} of {steps} steps leaves none: raise one of them")
    return steps - run


def checked_strength(strength: Any) -> float:
    """Raises ValueError unless a strength is a number above 0 and at most 1."""
    if not (is_number(strength) and 0 < strength <= 1):
        raise ValueError(f"strength must be above 0 and at most 1, got {strength!r}")
    return strength


def first_step(
    steps: int, strength: float | None, *, default: float, table: Table | None, inpainting: bool
) -> tuple[int, bool]:
    """The number of steps to leave out, and whether the run begins with noise alone. A table has
    its start already.

    Raises:
        ValueError: the strength is outside (0, 1] or leaves no step; it stands beside a table, or
            lacks beside one where it says how the table begins.
    """
    if table is None:
        strength = default if strength is None else strength
        return skipped(steps, strength), inpainting and strength == 1
    if inpainting and strength is None:
        raise ValueError("with table= pass strength: 1 to begin with noise alone, or less")
    if strength is not None and not inpainting:
        raise ValueError("table= replaces strength: pass one or the other")
    return 0, inpainting and checked_strength(strength) == 1
