"""Which pictures are trained on and which are held out: the same for every seed and process."""

import numpy as np
from jaxtyping import Int64


def held_out_indices(count: int, share: float) -> Int64[np.ndarray, "n"]:
    """Indices of the pictures that are held out of `count`, in ascending order.

    Args:
        count: number of pictures.
        share: a fraction below 1 of them (at least one, unless 0), or how many.

    Raises ValueError where no picture would be left to train on.
    """
    wanted = int(share) if share >= 1 else round(count * share) or int(share > 0)
    if wanted >= count:
        raise ValueError(
            f"held_out={share:g} leaves no picture to train on: there are {count} pictures"
        )
    # A bit generator's own numbers stay the same from one NumPy to the next.
    order = np.argsort(np.random.Philox(key=0).random_raw(count), kind="stable")
    return np.sort(order[:wanted]).astype(np.int64)


def training_indices(count: int, share: float) -> Int64[np.ndarray, "n"]:
    """Indices of all other pictures, in ascending order. Raises as `held_out_indices`."""
    kept = np.ones(count, bool)
    kept[held_out_indices(count, share)] = False
    return np.flatnonzero(kept).astype(np.int64)
