"""The options of `sample` that do not go together, found before anything is read."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

from ddpm_jax.cli.common import OptionError, too_small
from ddpm_jax.cli.share import Share

if TYPE_CHECKING:
    from ddpm_jax.cli.sample import Sample

LARGEST_SEED = 2**32 - 1
"""Without jax's x64 mode a key has 32 bits of seed: a larger seed would repeat a smaller one."""

LEAST = {
    "height": 1,
    "width": 1,
    "num": 1,
    "batch_size": 1,
    "columns": 1,
    "save_every": 1,
    "steps": 1,
    "seed": 0,
    "shard_size": 1,
}


def check_options(given: "Sample", share: Share) -> None:
    """Raises OptionError with all faults."""
    faults = too_small(given, LEAST)
    if given.guidance is not None and not math.isfinite(given.guidance):
        faults.append(f"--guidance must be a number, got {given.guidance}")
    if given.guidance_interval is not None:
        low, high = given.guidance_interval
        if not 0 <= low < high:
            faults.append(f"--guidance-interval needs 0 <= LOW < HIGH, got {low} {high}")
        prompted = bool(given.prompt or given.prompts_from)  # then it is above 1 by default
        if not (prompted if given.guidance is None else given.guidance > 1):
            faults.append("--guidance-interval needs --guidance above 1")
    if given.seed > LARGEST_SEED:
        faults.append(f"--seed must be at most {LARGEST_SEED}, got {given.seed}")
    if not (given.prompt or given.prompts_from):
        for_prompts = ("negative", "height", "width")
        needs = [f"--{name}" for name in for_prompts if getattr(given, name) is not None]
        if needs:
            faults.append(f"{', '.join(needs)}: only with --prompt or --prompts-from")
    elif given.labels:
        faults.append("--labels are of models without prompts: leave them out")
    if given.mask is not None and given.image is None:
        faults.append("--mask needs --image")
    if given.image is not None and given.has_own_table:
        faults.append("--image needs a scheduler: leave out --table and --scheduler learned")
    if given.upscale is not None and (given.image or given.prompt or given.prompts_from):
        faults.append("--upscale goes with neither --image nor prompts")
    if given.strength is not None and given.image is None:
        faults.append("--strength needs --image")
    faults += _out_faults(given, share)
    if given.gif and given.save_every is None:
        faults.append("--gif needs --save-every")
    if faults:
        raise OptionError("; ".join(faults))


def _out_faults(given: "Sample", share: Share) -> list[str]:
    """The faults of --out and of what depends on its kind."""
    if not given.out:
        return ["--out must not be empty: pass a name ending in .png, or a folder"]
    ending = Path(given.out).suffix.lower()
    return _grid_faults(given, share) if ending == ".png" else _folder_faults(given, ending)


def _grid_faults(given: "Sample", share: Share) -> list[str]:
    faults = []
    if share.count > 1:
        faults.append(
            f"{share.count} processes cannot share a grid: pass a folder to --out, got {given.out}"
        )
    if given.format == "npz":
        faults.append(f"--format npz needs a folder: --out must not end in .png, got {given.out}")
    if given.shard_size is not None:
        faults.append("--shard-size needs --format npz")
    return faults


def _folder_faults(given: "Sample", ending: str) -> list[str]:
    faults = []
    if ending in (".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".tif", ".tiff"):
        faults.append(f"--out must end in .png or be a folder, got {given.out}")
    if ending in (".npz", ".npy"):
        faults.append(f"--out must be a folder, and --format npz its files; got {given.out}")
    for name, used in (("columns", given.columns is not None), ("gif", given.gif)):
        if used:
            faults.append(f"--{name} needs a grid: --out must end in .png")
    if given.format == "npz" and given.save_every is not None:
        faults.append("--save-every needs PNG files: leave out --format npz")
    if given.format == "png" and given.shard_size is not None:
        faults.append("--shard-size needs --format npz")
    return faults
