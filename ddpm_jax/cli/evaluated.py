"""The images that `evaluate` compares: drawn from a model, of a folder of shards, or of any data
that `train` reads.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from ddpm_jax.cli.shard_files import PIXELS, Shard
from ddpm_jax.cli.shards import shards_in
from ddpm_jax.evaluation.resizing import Pixels
from ddpm_jax.evaluation.sets import ImageSet, SourceImages
from ddpm_jax.hub import hub
from ddpm_jax.hub.component import MODEL_INDEX
from ddpm_jax.hub.npz import read_npz
from ddpm_jax.models import UNet2DModel
from ddpm_jax.training.data import Data, open_source

if TYPE_CHECKING:
    from ddpm_jax.cli.drawing import Drawing
    from ddpm_jax.cli.job import Job


def is_model(name: str) -> bool:
    """Whether a name is a model's and not that of images: a bundled one, a folder with a config, or
    no local file or folder.
    """
    path = Path(name).expanduser()
    if name in hub.bundled_names() or not path.exists():
        return path.suffix.lower() not in (".npz", ".npy")
    files = UNet2DModel.files
    marks = (MODEL_INDEX, files.config, f"{files.folder}/{files.config}")
    return any((path / mark).is_file() for mark in marks)


def open_images(data: Data, num: int | None = None) -> ImageSet:
    """The images of a file, a folder or a data set.

    Args:
        data: which.
        num: the first so many; None: all.

    Raises:
        ValueError: there are none, or fewer than `num`; or as `open_source`.
        ImportError: as `open_source`.
    """
    path = Path(data.name).expanduser()
    if path.is_dir() and (shards := shards_in(path)):
        _check_complete(path, shards)
        found = ShardImages(path, tuple(shards), num)
        there = sum(map(len, shards))
    else:
        source = open_source(data)
        there = len(source)
        found = SourceImages(source, data.name, there if num is None else num)
    if num is not None and num > there:
        raise ValueError(f"{data.name} has {there} images, not {num}: pass a smaller --num")
    return found


def _check_complete(folder: Path, shards: list[Shard]) -> None:
    """ValueError if a shard is missing: a run that is not done, or several runs."""
    first = 0
    for shard in shards:
        if shard.first != first:
            raise ValueError(
                f"{folder}: no file has images from {first} on, before {shard.name}: the run of "
                "sample is not done, or there are several"
            )
        first = shard.last + 1


@dataclass(frozen=True)
class ShardImages(ImageSet):
    """A folder of shards, as `sample --format npz` writes them.

    Attributes:
        folder: the folder.
        shards: its files.
        num: the first so many images; None: all.
    """

    folder: Path
    shards: tuple[Shard, ...]
    num: int | None = None

    @property
    def count(self) -> int:
        """Number of images."""
        return sum(map(len, self.shards)) if self.num is None else self.num

    @property
    def shape(self) -> tuple[int, int, int]:
        """(h, w, c), of the first shard."""
        return self._shape

    @cached_property
    def _shape(self) -> tuple[int, int, int]:
        _, height, width, channels = self._read(self.shards[0]).shape
        return height, width, channels

    @property
    def settings(self) -> dict[str, object]:
        """The folder and the range of its images."""
        return {"data": str(self.folder), "shards": len(self.shards)}

    def batches(self, size: int) -> Iterator[Pixels]:
        """All images in order. ValueError for a shard that is damaged or of another shape."""
        left = self.count
        for shard in self.shards:
            pixels = self._read(shard)[:left]
            if pixels.shape[1:] != self.shape:
                raise ValueError(
                    f"{self.folder / shard.name} has images of {pixels.shape[1:]}, the first shard "
                    f"of {self.shape}"
                )
            left -= len(pixels)
            yield from (pixels[start : start + size] for start in range(0, len(pixels), size))

    def _read(self, shard: Shard) -> Pixels:
        file = self.folder / shard.name
        try:
            pixels = read_npz(file, [PIXELS])[PIXELS]
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(f"{file} cannot be read as a shard of images: {error}") from error
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or len(pixels) != len(shard):
            raise ValueError(
                f"{file} must hold {len(shard)} uint8 images, got {pixels.dtype} of {pixels.shape}"
            )
        return pixels


@dataclass(frozen=True)
class DrawnImages(ImageSet):
    """Images that are drawn from a model when they are asked for.

    Attributes:
        job: the run of `sample`.
        drawing: the same with the weights.
    """

    job: "Job"
    drawing: "Drawing"

    @property
    def count(self) -> int:
        """Number of images."""
        return self.job.total

    @property
    def shape(self) -> None:
        """Known when the first batch is drawn."""
        return None

    @property
    def settings(self) -> dict[str, object]:
        """All that determines the images."""
        return dict(self.job.settings)

    def batches(self, size: int) -> Iterator[Pixels]:
        """All images in order, with a progress bar."""
        for batch in self.drawing.draw(range(self.count)):
            pixels = np.stack([one.pixels for one in batch])
            yield from (pixels[start : start + size] for start in range(0, len(pixels), size))


def with_bar(images: ImageSet, size: int, what: str, num: int | None = None) -> Iterator[Pixels]:
    """Batches of a set, or of its first `num` images, with a progress bar."""
    left = images.count if num is None else num
    with tqdm(total=left, desc=what, unit=" images") as bar:
        for batch in images.batches(min(size, left)):
            yield batch[:left]
            bar.update(min(left, len(batch)))
            left -= len(batch)
            if left <= 0:
                return


def described(images: ImageSet, shape: Any) -> dict[str, Any]:
    """What a record says of a set of images."""
    return {**images.settings, "count": images.count, "shape": list(shape) if shape else None}
