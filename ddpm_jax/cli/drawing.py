"""Generates the images of a seed by their indices, batch by batch, with one progress bar.

All batches have the same size, so they share one compiled program. The last batch is padded with
its last image.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jaxtyping import Array, Bool, Float, UInt8
from tqdm import tqdm

from ddpm_jax.cli.devices import memory_advice
from ddpm_jax.cli.image_files import SampledImage
from ddpm_jax.images import to_uint8
from ddpm_jax.pipelines.generate import moving
from ddpm_jax.tables.table import Table

Pixels: TypeAlias = UInt8[np.ndarray, "b h w c"]
BAR = "{l_bar}{bar}| {n:.0f}/{total_fmt} [{elapsed}<{remaining}, {rate_noinv_fmt}]"
"""An image is done when all its steps are; the bar moves by the parts of images."""
BATCH_PIXELS = 2**18
"""Default number of pixels in a batch: 4 images of 256 x 256, which fit in 8 GB of memory."""
LARGEST_BATCH = 64
"""Limit for small images on a device. A run into a folder can resume only between batches."""


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """All settings that determine a seed's images.

    Attributes:
        pipe: the pipeline.
        options: of its call for images by their indices.
        table: the scheduler's table.
        seed: the key of image i is fold_in(key(seed), i).
        batch_size: number of images that are computed together.
        every: store the predicted images after every `every` evaluations; None: never.
        split: of a batch over devices, which must divide `batch_size`; None: one device.
    """

    pipe: Any
    options: Callable[[np.ndarray], Mapping[str, Any]]
    table: Table
    seed: int
    batch_size: int
    every: int | None
    split: NamedSharding | None = None

    def draw(self, indices: Sequence[int]) -> Iterator[list[SampledImage]]:
        """The images of these indices, one batch at a time.

        Raises:
            MemoryError: a batch does not fit in memory; the message names a batch size to try.
            ValueError: the network's output is not finite, or the model needs classes.
        """
        devices = 1 if self.split is None else self.split.num_devices
        starts = range(0, len(indices), self.batch_size)
        with tqdm(total=len(indices), unit=" images", bar_format=BAR) as bar:
            advanced = moving(bar)
            for start in starts:
                batch = indices[start : start + self.batch_size]
                with memory_advice(self.batch_size, devices, "--dtype bfloat16"):
                    found = self._batch(batch, advanced)
                yield found

    def _batch(
        self, indices: Sequence[int], advanced: Callable[[float], object]
    ) -> list[SampledImage]:
        padded = np.resize(indices, self.batch_size)
        padded[len(indices) :] = indices[-1]
        share = len(indices) / len(self.table)  # of an image, for each evaluation
        steps: list[Pixels] = []

        def store(_evaluations: int, images: np.ndarray) -> None:
            steps.append(to_uint8(images)[: len(indices)])

        output = self.pipe(
            key=jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(self.seed), padded),
            table=self.table,
            output_type="jax",
            sharding=self.split,
            advanced=lambda evaluations: advanced(evaluations * share),
            callback=None if self.every is None else store,
            callback_every=self.every or 1,
            **self.options(padded),
        )
        last = _on_host(output.images)[: len(indices)]
        steps[-1:] = [last]  # the sample itself instead of the network's last prediction
        return [
            SampledImage(*one) for one in zip(indices, last, zip(*steps, strict=True), strict=True)
        ]


def default_batch_size(height: int, width: int) -> int:
    """A batch size that suits most devices, for images of a size."""
    return max(1, min(LARGEST_BATCH, BATCH_PIXELS // (height * width)))


def _on_host(images: Float[Array, "b h w c"]) -> Pixels:
    """Pixels of images in [0, 1]. Only these bytes leave the devices."""
    pixels, finite = jax.device_get(_pixels(images))
    if not finite.all():
        raise ValueError(
            "the images contain NaN or infinity: try --dtype float32 or another scheduler"
        )
    return pixels


@jax.jit
def _pixels(
    images: Float[Array, "b h w c"],
) -> tuple[UInt8[Array, "b h w c"], Bool[Array, "b"]]:
    """As `to_uint8`, and whether an image has numbers only. No device needs another's images."""
    return (images * 255).round().astype(jnp.uint8), jnp.isfinite(images).all(axis=(1, 2, 3))
