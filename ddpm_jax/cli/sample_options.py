"""The options of `sample` that do not go together, found before anything is read."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ddpm_jax.cli.common import OptionError, flag, too_small
from ddpm_jax.cli.share import Share

if TYPE_CHECKING:
    from ddpm_jax.cli.sample import Sample

LARGEST_SEED = 2**32 - 1
"""Without jax's x64 mode a key has 32 bits of seed: a larger seed would repeat a smaller one."""

LEAST = {"seed": 0} | dict.fromkeys(
    ("height", "width", "num", "batch_size", "columns", "save_every", "steps", "shard_size"), 1
)
OTHER_FILES = (".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".tif", ".tiff")


def check_options(given: "Sample", share: Share) -> None:
    """Raises OptionError with all faults."""
    faults = [*too_small(given, LEAST), *_faults(given), *_out_faults(given, share)]
    if faults:
        raise OptionError("; ".join(faults))


def _faults(given: "Sample") -> Iterator[str]:
    prompted = given.prompt or given.prompts_from
    if given.guidance is not None and not math.isfinite(given.guidance):
        yield f"--guidance must be a number, got {given.guidance}"
    if given.guidance_interval is not None:
        low, high = given.guidance_interval
        if not 0 <= low < high:
            yield f"--guidance-interval needs 0 <= LOW < HIGH, got {low} {high}"
        # With prompts it is above 1 by default.
        if not (prompted if given.guidance is None else given.guidance > 1):
            yield "--guidance-interval needs --guidance above 1"
    if given.seed > LARGEST_SEED:
        yield f"--seed must be at most {LARGEST_SEED}, got {given.seed}"
    if prompted and given.labels:
        yield "--labels are of models without prompts: leave them out"
    for_prompts = ("negative", "height", "width")
    needs = [flag(name) for name in for_prompts if getattr(given, name) is not None]
    if needs and not prompted:
        yield f"{', '.join(needs)}: only with --prompt or --prompts-from"
    if given.image is not None and given.has_own_table:
        yield "--image needs a scheduler: leave out --table and --scheduler learned"
    for name in ("mask", "strength"):
        if getattr(given, name) is not None and given.image is None:
            yield f"--{name} needs --image"
    if given.upscale is not None and (given.image or prompted):
        yield "--upscale goes with neither --image nor prompts"
    if given.gif and given.save_every is None:
        yield "--gif needs --save-every"
    if given.shard_size is not None and given.format != "npz":
        yield "--shard-size needs --format npz"


def _out_faults(given: "Sample", share: Share) -> Iterator[str]:
    """The faults of --out and of what depends on its kind."""
    ending = Path(given.out).suffix.lower()
    if not given.out:
        yield "--out must not be empty: pass a name ending in .png, or a folder"
    elif ending == ".png":
        if share.count > 1:
            yield (
                f"{share.count} processes cannot share a grid: pass a folder to --out, got "
                f"{given.out}"
            )
        if given.format == "npz":
            yield f"--format npz needs a folder: --out must not end in .png, got {given.out}"
    else:
        if ending in OTHER_FILES:
            yield f"--out must end in .png or be a folder, got {given.out}"
        if ending in (".npz", ".npy"):
            yield f"--out must be a folder, and --format npz its files; got {given.out}"
        for name in ("columns", "gif"):
            if getattr(given, name):
                yield f"--{name} needs a grid: --out must end in .png"
        if given.format == "npz" and given.save_every is not None:
            yield "--save-every needs PNG files: leave out --format npz"
