"""Long work on a set of images, part by part: what is done is kept in files and read again."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ddpm_jax.hub.files import replacing


def in_parts(
    folder: Path,
    batches: Iterable[np.ndarray],
    total: int,
    compute: Callable[[int, np.ndarray], dict[str, np.ndarray]],
) -> Iterator[dict[str, np.ndarray]]:
    """The arrays of each batch, computed unless the folder has them.

    Args:
        folder: of the files; their names say which images they are of, so that batches of another
            size are computed anew. All else that decides the arrays must be the folder's own.
        batches: of images, in order.
        total: number of images, for the progress bar.
        compute: compute(first, images) of images first, first + 1, ... of the set.
    """
    first = 0
    folder.mkdir(parents=True, exist_ok=True)
    with tqdm(total=total, desc=folder.name, unit=" images") as bar:
        for images in batches:
            file = folder / f"{first:05d}-{first + len(images) - 1:05d}.npz"
            if not file.exists():
                found = compute(first, images)
                with replacing(file) as partial, partial.open("wb") as content:
                    np.savez(content, allow_pickle=False, **found)
            with np.load(file) as kept:
                yield dict(kept)
            first += len(images)
            bar.update(len(images))
