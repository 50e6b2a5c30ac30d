"""Bits per dimension of a model on a set of images: batches, progress, and the mean.

    (1)  mean over images of the bound (`ddpm_jax.evaluation.bound`) or of the probability flow's
         figure (`ddpm_jax.evaluation.flow`), with a standard error of the mean over images

Image i of the set has the key fold_in(key, i), whatever the batches are.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, TypeAlias

import jax
import numpy as np
from jaxtyping import Float, Int, Key, UInt8

from ddpm_jax._typing import AnyArray
from ddpm_jax.evaluation.levels import from_uint8
from ddpm_jax.hub.files import listed
from ddpm_jax.sampling.keys import typed_keys

Pixels: TypeAlias = UInt8[np.ndarray, "_ _ _ _"]
"""Images (B, H, W, C)."""
Bits: TypeAlias = Callable[..., Float[AnyArray, "b"]]
"""bits(x0, keys) -> bits per dimension of each image; bits(x0, keys, labels) with labels."""


class Likelihoods(NamedTuple):
    """Bits per dimension of a set of images.

    Attributes:
        bits_per_dim: (N,) of each image, float64 on the host.
    """

    bits_per_dim: Float[np.ndarray, "n"]

    @property
    def mean(self) -> float:
        """Over images."""
        return float(self.bits_per_dim.mean())

    @property
    def standard_error(self) -> float:
        """Of the mean; NaN for one image."""
        n = len(self.bits_per_dim)
        return float(self.bits_per_dim.std(ddof=1) / np.sqrt(n)) if n > 1 else float("nan")


def bits_of_set(
    bits: Bits,
    batches: Iterable[Pixels],
    key: Key[AnyArray, ""],
    *,
    labels: Int[np.ndarray, "n"] | None = None,
    batch_size: int | None = None,
    progress: bool = True,
) -> Likelihoods:
    """Bits per dimension of all images of a set.

    Args:
        bits: bits(x0, keys), of `ddpm_jax.variational_bound` or `ddpm_jax.flow_log_likelihood`.
        batches: uint8 images of one size. A smaller batch is filled up, so that everything is
            compiled once.
        key: one key; image i of the set has fold_in(key, i).
        labels: the class of image i of the set, which `bits` is then given, too.
        batch_size: images computed together. None: the size of the first batch.
        progress: show a bar.

    Raises:
        ValueError: there is no image, a batch is larger than `batch_size`, a figure is not finite,
            or as `bits`.
    """
    from tqdm import tqdm

    found: list[np.ndarray] = []
    shown = tqdm(batches, "nll", unit="batch", disable=not progress)
    for x0, indices, count in _filled(iter(shown), batch_size):
        of_each = () if labels is None else (labels[indices],)
        found.append(np.asarray(bits(x0, _keys(key, indices), *of_each), np.float64)[:count])
        if wrong := [int(i) for i in indices[:count][~np.isfinite(found[-1])]]:
            raise ValueError(f"the bits of image {listed(wrong)} are not finite: NaN or infinity")
    if not found:
        raise ValueError("a likelihood needs at least one image")
    return Likelihoods(np.concatenate(found))


def _keys(key: Key[AnyArray, ""], indices: Int[np.ndarray, "b"]) -> Key[AnyArray, "b"]:
    return jax.vmap(jax.random.fold_in, (None, 0))(typed_keys(key), indices.astype(np.uint32))


def _filled(
    batches: Iterator[Pixels], size: int | None
) -> Iterator[tuple[Float[np.ndarray, "_ _ _ _"], Int[np.ndarray, "_"], int]]:
    """x0 of batches of one size, filled up with the last image; the indices of the images; and how
    many of them are not filling.
    """
    first = 0
    for pixels in batches:
        size, count = size or len(pixels), len(pixels)
        if count > size:
            raise ValueError(f"a batch has {count} images, and {size} are computed together")
        x0 = from_uint8(pixels)
        x0 = np.concatenate([x0, np.repeat(x0[-1:], size - count, axis=0)])
        yield x0, first + np.minimum(np.arange(size), count - 1), count
        first += count
