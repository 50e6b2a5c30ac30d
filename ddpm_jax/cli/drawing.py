"""Generates the images of a seed by their indices, batch by batch, with one progress bar.

All batches have the same size, so they share one compiled program. The last batch is padded with
its last image.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import numpy as np
from PIL import Image
from tqdm import tqdm

from ddpm_jax._typing import AnyArray
from ddpm_jax.cli.image_files import SampledImage
from ddpm_jax.images import to_pil
from ddpm_jax.models import UNet2DModel
from ddpm_jax.pipelines.generate import generate, moving, with_inputs
from ddpm_jax.pipelines.inputs import Inputs, image_shape, make_inputs
from ddpm_jax.sampling.segments import out_of_memory
from ddpm_jax.tables.table import Table

Advanced: TypeAlias = Callable[[int], object]
BATCH_PIXELS = 2**18
"""Default number of pixels in a batch: 4 images of 256 x 256, which fit in 8 GB of memory."""
LARGEST_BATCH = 64
"""Limit for small images. A run into a folder can resume only between batches."""


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A model and all settings that determine its images.

    Attributes:
        model: the network.
        params: its params.
        table: the scheduler's table.
        seed: the key of image i is fold_in(key(seed), i).
        labels: the class of image i is labels[i % len(labels)]; empty for a model without classes.
        negative: the class that guidance moves away from, or None.
        guidance: its scale; up to 1 there is none.
        batch_size: number of images that are computed together.
        every: store the predicted images after every `every` evaluations; None: never.
    """

    model: UNet2DModel
    params: Any
    table: Table
    seed: int
    labels: Sequence[int]
    negative: int | None
    guidance: float
    batch_size: int
    every: int | None

    def draw(self, indices: Sequence[int]) -> Iterator[list[SampledImage]]:
        """The images of these indices, one batch at a time.

        Raises:
            MemoryError: a batch does not fit in memory; the message names a batch size to try.
            ValueError: the network's output is not finite, or the model needs classes.
        """
        starts = range(0, len(indices), self.batch_size)
        with tqdm(total=len(starts) * len(self.table), unit="step") as bar:
            advanced = moving(bar)
            for start in starts:
                yield self._batch(indices[start : start + self.batch_size], advanced)

    def _batch(self, indices: Sequence[int], advanced: Advanced) -> list[SampledImage]:
        try:
            return self._run(indices, advanced)
        except (jax.errors.JaxRuntimeError, MemoryError) as error:
            if out_of_memory(error):
                raise MemoryError(self._advice()) from error
            raise

    def _run(self, indices: Sequence[int], advanced: Advanced) -> list[SampledImage]:
        inputs = self._inputs(indices)
        denoise, params = with_inputs(self.model, self.params, inputs, self.guidance)
        steps: list[list[Image.Image]] = []

        def store(_evaluations: int, images: np.ndarray) -> None:
            steps.append(_pil(images)[: len(indices)])

        images = generate(
            denoise,
            params,
            self.table,
            inputs,
            advanced=advanced,
            preview=None if self.every is None else store,
            preview_every=self.every or 1,
        )
        last = _pil(images)[: len(indices)]
        steps[-1:] = [last]  # the sample itself instead of the network's last prediction
        return [
            SampledImage(*one) for one in zip(indices, last, zip(*steps, strict=True), strict=True)
        ]

    def _inputs(self, indices: Sequence[int]) -> Inputs:
        padded = np.resize(indices, self.batch_size)
        padded[len(indices) :] = indices[-1]
        keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(self.seed), padded)
        labels = np.asarray(self.labels)[padded % len(self.labels)] if self.labels else None
        return make_inputs(
            self.model, self.table, keys, class_labels=labels, negative_labels=self.negative
        )

    def _advice(self) -> str:
        if self.batch_size > 1:
            return f"out of memory: try --batch-size {self.batch_size // 2}"
        return "out of memory with a batch size of 1: try --dtype bfloat16"


def default_batch_size(model: UNet2DModel, num: int) -> int:
    """A batch size that suits most machines, at most `num`."""
    height, width, _ = image_shape(model)
    return max(1, min(num, LARGEST_BATCH, BATCH_PIXELS // (height * width)))


def _pil(images: AnyArray) -> list[Image.Image]:
    """PIL images of (B, H, W, C) in [0, 1]."""
    host = np.asarray(images)
    if not np.isfinite(host).all():
        raise ValueError(
            "the images contain NaN or infinity: try --dtype float32 or another scheduler"
        )
    return to_pil(host)
