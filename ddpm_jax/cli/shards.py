"""A folder of `sample` with one file for many images, `00000-00999.npz` and so on.

For tens of thousands of images: a folder of as many files is slow to list and to copy.
"""

import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int

from ddpm_jax.cli.image_files import Each, SampledImage, same_settings
from ddpm_jax.cli.output import check_writable
from ddpm_jax.cli.shard_files import Shard, holds, is_damaged, read_settings, save_shard
from ddpm_jax.cli.share import Share

SHARD_SIZE = 1000
"""Default number of images in a file: 3 MB of 32x32 pixels, 200 MB of 256x256."""
NAMED = re.compile(r"(\d{5,})-(\d{5,})\.npz")


def division(num: int, size: int) -> list[Shard]:
    """Images 0 to num - 1 in shards of a size; the last has what is left."""
    return [Shard(first, min(first + size, num) - 1) for first in range(0, num, size)]


def shards_in(folder: Path) -> list[Shard]:
    """The shards of a folder, by their files' names."""
    found = (NAMED.fullmatch(file.name) for file in folder.iterdir())
    return sorted(Shard(int(one[1]), int(one[2])) for one in found if one)


class Shards:
    """One .npz file for every `size` images, written when all of them are there."""

    if_interrupted = "run the same command again to make the missing shards"

    def __init__(
        self,
        path: Path,
        settings: Mapping[str, str],
        *,
        size: int,
        each: Each,
        classes: Sequence[int],
        share: Share,
    ):
        """Creates the folder.

        Args:
            path: the folder.
            settings: of the run.
            size: images in a file.
            each: settings of single images.
            classes: of image i, classes[i % len(classes)]; empty for models without classes.
            share: the shards that are made here.

        Raises:
            OSError: `path` is a file, or not writable.
        """
        check_writable(path)
        self._path, self._settings, self._each = path, settings, each
        self._size, self._classes, self._share = size, classes, share
        self._planned: dict[int, Shard] = {}
        self._begun: dict[int, SampledImage] = {}

    def own(self, num: int) -> int:
        """How many of `num` images are made here."""
        return sum(len(one) for one in self._own(num).values())

    def missing(self, num: int) -> list[int]:
        """The indices of the share's shards that have no file, or a damaged one.

        Each damaged file is reported on stderr.

        Raises:
            ValueError: a file was made with other settings, by another program, or has a part of
                these images under another name.
        """
        planned = division(num, self._size)
        present = shards_in(self._path)
        self._check_names(present, planned)
        self._planned = self._own(num)
        own = self._planned.values()
        wanted = [one for one in own if one not in present or not self._usable(one)]
        return [number for one in wanted for number in one.numbers]

    def save(self, sampled: Sequence[SampledImage]) -> None:
        """Take images in, and write each shard that is complete."""
        self._begun |= {one.number: one for one in sampled}
        for k in sorted({one.number // self._size for one in sampled}):
            shard = self._planned[k]
            if all(i in self._begun for i in shard.numbers):
                self._write(shard)

    def finish(self) -> str:
        """The path of the folder."""
        return f"{self._path.resolve()}{os.sep}"

    def _own(self, num: int) -> dict[int, Shard]:
        every = enumerate(division(num, self._size))
        return {k: one for k, one in every if self._share.owns(k)}

    def _write(self, shard: Shard) -> None:
        pixels = np.stack([self._begun.pop(i).pixels for i in shard.numbers])
        path = self._path / shard.name
        save_shard(path, pixels, self._classes_of(shard), self._settings_of(shard), shard.text)

    def _check_names(self, present: Sequence[Shard], planned: Sequence[Shard]) -> None:
        """ValueError for files with the same images under another name, or, of more images than
        --num, with other settings.
        """
        for one in sorted(set(present) - set(planned)):
            file = self._path / one.name
            twice = next((shard for shard in planned if one.overlaps(shard)), None)
            if twice is not None:
                raise ValueError(
                    f"{file} has images of {twice.name}, which this --num and --shard-size make: "
                    "remove the file, or pass another folder to --out"
                )
            if not is_damaged(file):
                found = read_settings(file)
                prompts = {"prompts": found["prompts"]} if "prompts" in found else {}
                same_settings(file, found, {**self._settings, **prompts})

    def _usable(self, shard: Shard) -> bool:
        file = self._path / shard.name
        if not is_damaged(file):
            found = read_settings(file)
            same_settings(file, found, self._settings_of(shard))
            if found.get("image") == shard.text and holds(file, shard, self._classes_of(shard)):
                return True
        print(f"ddpm-jax: {file} is damaged or another shard: it is made again", file=sys.stderr)
        return False

    def _settings_of(self, shard: Shard) -> dict[str, str]:
        """Those of the run, and the prompts of the images."""
        own = [self._each(number) or {} for number in shard.numbers]
        names = sorted({name for one in own for name in one})
        lists = {f"{name}s": json.dumps([one.get(name) for one in own]) for name in names}
        return {**self._settings, **lists}

    def _classes_of(self, shard: Shard) -> Int[np.ndarray, "n"] | None:
        if not self._classes:
            return None
        return np.asarray(self._classes, np.int64)[np.array(shard.numbers) % len(self._classes)]
