"""Generates the images of a seed by their indices, batch by batch, with one progress bar.

All batches have the same size, so they share one compiled program. The last batch is padded with
its last image.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jaxtyping import Array, Bool, Float, UInt8
from tqdm import tqdm

from ddpm_jax.cli.image_files import SampledImage
from ddpm_jax.images import to_uint8
from ddpm_jax.pipelines.generate import Preview, moving
from ddpm_jax.pipelines.unconditional import UnconditionalPipeline
from ddpm_jax.sampling.segments import out_of_memory
from ddpm_jax.tables.table import Table

Advanced: TypeAlias = Callable[[float], object]
Pixels: TypeAlias = UInt8[np.ndarray, "b h w c"]
BAR = "{l_bar}{bar}| {n:.0f}/{total_fmt} [{elapsed}<{remaining}, {rate_noinv_fmt}]"
"""An image is done when all its steps are; the bar moves by the parts of images."""
BATCH_PIXELS = 2**18
"""Default number of pixels in a batch: 4 images of 256 x 256, which fit in 8 GB of memory."""
LARGEST_BATCH = 64
"""Limit for small images on a device. A run into a folder can resume only between batches."""


@dataclass(frozen=True, kw_only=True)
class Drawing(ABC):
    """All settings that determine a seed's images.

    Attributes:
        table: the scheduler's table.
        seed: the key of image i is fold_in(key(seed), i).
        batch_size: number of images that are computed together.
        every: store the predicted images after every `every` evaluations; None: never.
        split: of a batch over devices, which must divide `batch_size`; None: one device.
    """

    table: Table
    seed: int
    batch_size: int
    every: int | None
    split: NamedSharding | None = None

    @abstractmethod
    def generate(
        self, indices: np.ndarray, keys: Any, advanced: Advanced, preview: Preview | None
    ) -> Float[Array, "b h w c"]:
        """One batch of images in [0, 1], by their indices and keys, on the devices."""

    def draw(self, indices: Sequence[int]) -> Iterator[list[SampledImage]]:
        """The images of these indices, one batch at a time.

        Raises:
            MemoryError: a batch does not fit in memory; the message names a batch size to try.
            ValueError: the network's output is not finite, or the model needs classes.
        """
        starts = range(0, len(indices), self.batch_size)
        with tqdm(total=len(indices), unit=" images", bar_format=BAR) as bar:
            advanced = moving(bar)
            for start in starts:
                batch = indices[start : start + self.batch_size]
                yield self._batch(batch, Steps(advanced, len(batch) / len(self.table)))

    def _batch(self, indices: Sequence[int], advanced: Advanced) -> list[SampledImage]:
        try:
            return self._run(indices, advanced)
        except (jax.errors.JaxRuntimeError, MemoryError) as error:
            if out_of_memory(error):
                raise MemoryError(self._advice()) from error
            raise

    def _run(self, indices: Sequence[int], advanced: Advanced) -> list[SampledImage]:
        padded = np.resize(indices, self.batch_size)
        padded[len(indices) :] = indices[-1]
        keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(self.seed), padded)
        steps: list[Pixels] = []

        def store(_evaluations: int, images: np.ndarray) -> None:
            steps.append(to_uint8(images)[: len(indices)])

        images = self.generate(padded, keys, advanced, None if self.every is None else store)
        last = _on_host(images)[: len(indices)]
        steps[-1:] = [last]  # the sample itself instead of the network's last prediction
        return [
            SampledImage(*one) for one in zip(indices, last, zip(*steps, strict=True), strict=True)
        ]

    def _advice(self) -> str:
        devices = 1 if self.split is None else self.split.num_devices
        if self.batch_size > devices:
            least = max(1, self.batch_size // devices // 2) * devices
            return f"out of memory: try --batch-size {least}"
        where = "" if devices == 1 else " for each device"
        return f"out of memory with a batch size of 1{where}: try --dtype bfloat16"


@dataclass(frozen=True)
class Steps:
    """Moves a bar of images by the steps of a batch: `share` images for each evaluation."""

    advanced: Advanced
    share: float

    def __call__(self, evaluations: float) -> None:
        """Moves it."""
        self.advanced(evaluations * self.share)


@dataclass(frozen=True, kw_only=True)
class LabelDrawing(Drawing):
    """Images of a model with one network.

    Attributes:
        pipe: the pipeline.
        labels: the class of image i is labels[i % len(labels)]; empty for a model without classes.
        options: of all calls.
    """

    pipe: UnconditionalPipeline
    labels: Sequence[int]
    options: Mapping[str, Any]

    def generate(
        self, indices: np.ndarray, keys: Any, advanced: Advanced, preview: Preview | None
    ) -> Float[Array, "b h w c"]:
        """As `Drawing.generate`."""
        labels = np.asarray(self.labels)[indices % len(self.labels)] if self.labels else None
        output: Any = self.pipe(
            keys,
            class_labels=labels,
            table=self.table,
            output_type="jax",
            sharding=self.split,
            advanced=advanced,
            callback=preview,
            callback_every=self.every or 1,
            **self.options,
        )
        return output.images


@dataclass(frozen=True, kw_only=True)
class PromptDrawing(Drawing):
    """Images of a pipeline with prompts.

    Attributes:
        pipe: the pipeline.
        prompts: of all images, in sequence.
        num: images of each prompt.
        options: of all calls.
    """

    pipe: Any
    prompts: Sequence[str]
    num: int
    options: Mapping[str, Any]

    def generate(
        self, indices: np.ndarray, keys: Any, advanced: Advanced, preview: Preview | None
    ) -> Float[Array, "b h w c"]:
        """As `Drawing.generate`."""
        return self.pipe(
            [self.prompts[i // self.num] for i in indices],
            keys,
            table=self.table,
            output_type="jax",
            sharding=self.split,
            advanced=advanced,
            callback=preview,
            callback_every=self.every or 1,
            **self.options,
        ).images


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
