"""Large pictures in overlapping tiles, so that memory does not grow with the picture.

Along each axis tile k begins at k (n - m), n being a tile's side and m the overlap; the last one is
as long as the picture allows. Where b overlaps a, which is above or to the left, it becomes

    (1)  b_i <- (1 - i / m) a_i + (i / m) b_i,    i = 0, ..., m - 1

Each tile is computed by itself, norms and attention included, so the result is close to that of one
piece, and not equal.

A tile has one of at most four shapes: inside, at the right, at the bottom, in the corner. Each is
compiled once. The tiles are joined on the host. They are those of diffusers' `enable_tiling`.

`memory_analysis()` of Stable Diffusion's compiled decoder, on a CPU in float32, is 15.0 GB of
temporary memory for a picture of 2048 x 2048, and 0.94 GB for a tile of 512 x 512; the encoder's is
6.58 and 0.40 GB (jaxlib 0.10.2).
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from ddpm_jax._typing import AnyArray
from ddpm_jax.models import checks
from ddpm_jax.models.autoencoder_kl.model import AutoencoderKL, Posterior, posterior

Picture = Float[np.ndarray, "..."]
"""(b, h, w, c)."""


def decode_tiled(
    vae: AutoencoderKL,
    params: Mapping[str, Any],
    latents: Float[AnyArray, "b h w c"],
    *,
    tile: int | None = None,
    overlap: float = 0.25,
) -> Float[np.ndarray, "b h2 w2 c2"]:
    """As `vae.decode`, in tiles; on the host.

    Args:
        vae: the autoencoder.
        params: its params.
        latents: (b, h, w, latent_channels), not scaled.
        tile: side of a tile, in pixels of the image, a multiple of `vae.factor`; None: the size of
            the training images, `vae.sample_size`.
        overlap: part of a tile that it shares with the next one, in [0, 1).

    Returns:
        (b, factor h, factor w, out_channels), float32, about in [-1, 1] and not clipped. Latents
        that fit in one tile are decoded in one piece.

    Raises:
        ValueError: wrong shapes, a tile that is no multiple of `vae.factor`, or an overlap out of
            range.

    >>> import jax, numpy as np, ddpm_jax as dj
    >>> vae = dj.AutoencoderKL(block_out_channels=(4,), norm_num_groups=2)
    >>> params = vae.init_params(jax.random.key(0))
    >>> latents = np.zeros((1, 8, 12, 4), np.float32)
    >>> dj.decode_tiled(vae, params, latents, tile=8).shape
    (1, 8, 12, 3)
    """
    side, shared = _sides(vae, tile, overlap)
    checks.refuse(checks.image(latents, vae.latent_channels, "latents"))
    run = partial(_apply, vae, "decode", params)
    return _tiled(run, np.asarray(latents), side, shared, 1, vae.factor)


def encode_tiled(
    vae: AutoencoderKL,
    params: Mapping[str, Any],
    images: Float[AnyArray, "b h w c"],
    *,
    tile: int | None = None,
    overlap: float = 0.25,
) -> Posterior:
    """As `vae.encode`, in tiles.

    Args:
        vae: the autoencoder.
        params: its params.
        images: (b, h, w, in_channels) in [-1, 1], of any size of at least `factor`.
        tile: as in `decode_tiled`.
        overlap: as in `decode_tiled`.

    Returns:
        mean and std, (b, h // factor, w // factor, latent_channels), float32, not scaled. Equation
        (1) is that of means and of log variances.

    Raises:
        ValueError: as `decode_tiled`.

    >>> import jax, numpy as np, ddpm_jax as dj
    >>> vae = dj.AutoencoderKL(block_out_channels=(4,), norm_num_groups=2)
    >>> params = vae.init_params(jax.random.key(0))
    >>> images = np.zeros((1, 8, 12, 3), np.float32)
    >>> dj.encode_tiled(vae, params, images, tile=8).mean.shape
    (1, 8, 12, 4)
    """
    side, shared = _sides(vae, tile, overlap)
    checks.refuse(checks.image(images, vae.in_channels, "images"))
    run = partial(_apply, vae, "moments", params)
    return posterior(_tiled(run, np.asarray(images), side, shared, vae.factor, 1))


@partial(jax.jit, static_argnums=(0, 1))
def _apply(vae: AutoencoderKL, method: str, params: Mapping[str, Any], x: Array) -> Any:
    return vae.apply({"params": params}, x, method=method)


def _sides(vae: AutoencoderKL, tile: int | None, overlap: float) -> tuple[int, int]:
    """A tile's side and its overlap with the next one, in pixels of the latents."""
    if tile is None:
        size = vae.sample_size
        tile = size[0] if isinstance(size, Sequence) else size or 0
        tile -= tile % vae.factor
    if not checks.is_count(tile) or tile % vae.factor:
        raise ValueError(f"tile must be a positive multiple of {vae.factor} pixels, got {tile!r}")
    side = tile // vae.factor
    step = int(side * (1 - overlap)) if checks.is_number(overlap) and 0 <= overlap < 1 else 0
    if step < 1:
        raise ValueError(
            f"overlap must lie in [0, 1) and leave a pixel of the latents that tiles of {side} do "
            f"not share, got {overlap!r}"
        )
    return side, side - step


def _tiled(
    run: Callable[[Picture], Any], x: Picture, side: int, shared: int, before: int, after: int
) -> Picture:
    """The tiles of x under `run`, joined; a pixel of the latents is `before` of x and `after`."""
    length, step = before * side, side - shared
    if max(x.shape[1:3]) <= length:
        return np.asarray(run(x))
    rows, above = [], []
    tops, lefts = (range(0, size - before + 1, before * step) for size in x.shape[1:3])
    for top in tops:
        row: list[Picture] = []
        for k, left in enumerate(lefts):
            tile = np.array(run(x[:, top : top + length, left : left + length]))
            if above:
                _blend(above[k], tile, after * shared, axis=1)
            if row:
                _blend(row[-1], tile, after * shared, axis=2)
            row.append(tile)
        kept = [tile[:, : after * step, : after * step] for tile in row]
        rows.append(np.concatenate(kept, axis=2))
        above = row
    return np.concatenate(rows, axis=1)


def _blend(a: Picture, b: Picture, shared: int, axis: int) -> None:
    """Equation (1), in place: b begins in the last pixels of a."""
    a, b = np.moveaxis(a, axis, -1), np.moveaxis(b, axis, -1)
    count = min(a.shape[-1], b.shape[-1], shared)
    weight = (np.arange(count) / max(count, 1)).astype(b.dtype)
    b[..., :count] = a[..., a.shape[-1] - count :] * (1 - weight) + b[..., :count] * weight
