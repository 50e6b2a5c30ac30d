"""Convert a whole folder: the weights under current names in one of three formats, and the configs
that belong to them.
"""

import json
import os
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from weights_convert import rules
from weights_convert.errors import listed
from weights_convert.files import candidates, open_weights
from weights_convert.layout import (
    CONFIG,
    INDEX,
    NETWORK,
    SCHEDULER_CONFIG,
    Layout,
    locate,
    read_config,
)
from weights_convert.names import current_config
from weights_convert.tensors import BFLOAT16, Array, Checkpoint, Stored
from weights_convert.write import replacing, write_flax, write_orbax_folder, write_torch

Kind: TypeAlias = Literal["flax", "orbax", "diffusers"]
Dtype: TypeAlias = Literal["float32", "float16", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class Report:
    """The result of a conversion: source, destination and sizes. A tensor that is stored under two
    names counts once.
    """

    source: Path
    destination: Path
    tensors: int
    params: int
    bytes: int
    dtypes: Mapping[str, int]  # how many tensors have which dtype
    has_config: bool

    def __str__(self) -> str:
        dtypes = ", ".join(
            name if len(self.dtypes) == 1 else f"{count} {name}"
            for name, count in sorted(self.dtypes.items())
        )
        size = f"{self.tensors:,} tensors, {self.params:,} params, {dtypes}, {self.bytes:,} bytes"
        hint = "" if self.has_config else f" (no {CONFIG}: add one to this folder to load it)"
        return f"{self.source} -> {self.destination}: {size}{hint}"


def convert(
    src: str | Path,
    dst: str | Path,
    *,
    to: Kind = "flax",
    overwrite: bool = False,
    variant: str | None = None,
    dtype: Dtype | None = None,
) -> Report:
    """Convert the weights at `src` into the new folder `dst`, with the configs that loading needs.

    The stored dtype stays unless one is given. A component becomes a component. A pipeline, nested
    or flat, becomes a nested pipeline, and its other components are copied unchanged. Peak memory
    is about two tensors. For orbax it is about 4/3 of the checkpoint, because orbax takes the whole
    tree at once.

    Args:
        src: a component's folder, a pipeline's folder, a weight file, an index of shards or an
            orbax folder.
        dst: the folder to create. It appears only when it is complete.
        to: "flax" (our safetensors), "orbax", or "diffusers" (a folder that diffusers loads).
        overwrite: overwrite an earlier result at `dst`.
        variant: which of the weights in a folder to read ("fp16").
        dtype: "float32", "float16" or "bfloat16". Every tensor is rounded to it.

    Raises:
        ValueError: weights, configs or names cannot be converted; a number is too large for
            `dtype`; `dst` is `src`, is inside it or contains it; `dst` contains files that no
            conversion wrote.
        OSError: `src` is missing, or `dst` exists or cannot be written.
    """
    src, dst = Path(src), Path(os.path.abspath(dst))
    if to not in get_args(Kind):
        raise ValueError(f"to={to!r}: must be one of {', '.join(get_args(Kind))}")
    if dtype is not None and dtype not in get_args(Dtype):
        raise ValueError(f"dtype={dtype!r}: must be one of {', '.join(get_args(Dtype))}")
    layout = locate(src, variant)
    _check_destination(src, layout, dst, overwrite)
    with open_weights(layout.weights) as checkpoint:
        if not checkpoint:
            raise ValueError(f"{layout.weights} contains no tensors")
        leaves = _leaves(layout.weights, checkpoint)
        if dtype is not None:
            wanted = BFLOAT16 if dtype == "bfloat16" else np.dtype(dtype)
            leaves = {path: _cast(path, leaf, wanted) for path, leaf in leaves.items()}
        dst.parent.mkdir(parents=True, exist_ok=True)
        with replacing(dst) as partial:
            written = _write(partial, layout, leaves, to)
    return Report(
        source=layout.weights,
        destination=dst / written.relative_to(partial),
        tensors=len(leaves),
        params=sum(tensor.size for tensor in leaves.values()),
        bytes=sum(tensor.nbytes for tensor in leaves.values()),
        dtypes=Counter(str(tensor.dtype) for tensor in leaves.values()),
        has_config=any(Path(place).name == CONFIG for place in layout.copies),
    )


def _leaves(weights: Path, checkpoint: Checkpoint) -> dict[rules.Path, Stored]:
    try:
        return rules.flax_leaves(checkpoint)
    except ValueError as error:
        raise ValueError(f"{weights}: {error}") from None


def _cast(path: rules.Path, leaf: Stored, dtype: np.dtype[Any]) -> Stored:
    """A leaf in another dtype. A finite number that overflows to infinity is an error."""

    def read() -> Array:
        array = leaf.read()
        with np.errstate(over="ignore"):
            rounded = array.astype(dtype)
        if np.isfinite(array).all() and not np.isfinite(rounded.astype(np.float32)).all():
            largest = np.abs(array.astype(np.float32)).max()
            raise ValueError(f"{'.'.join(path)} contains {largest:.3g}, too large for {dtype}")
        return rounded

    return Stored(leaf.shape, dtype, read)


def _write(folder: Path, layout: Layout, leaves: Mapping[rules.Path, Stored], to: Kind) -> Path:
    """Fill the new folder; returns the weight file or orbax folder in it."""
    for place, origin in layout.copies.items():
        target = folder / place
        target.parent.mkdir(parents=True, exist_ok=True)
        if origin.is_dir():
            shutil.copytree(origin, target, copy_function=shutil.copyfile)
            continue
        shutil.copyfile(origin, target)
        if origin.name in (CONFIG, SCHEDULER_CONFIG):
            config = read_config(origin)
            if (current := current_config(config)) != config:
                _write_json(target, current)
    component = folder / layout.subfolder
    component.mkdir(parents=True, exist_ok=True)
    if layout.index is not None:
        _write_json(folder / INDEX, layout.index)
    if to == "diffusers":
        return write_torch(component, rules.torch_tensors(leaves))
    return write_flax(component, leaves) if to == "flax" else write_orbax_folder(component, leaves)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _check_destination(src: Path, layout: Layout, dst: Path, overwrite: bool) -> None:
    """Raises unless `dst` is new or empty, or is an earlier result and `overwrite` is set."""
    target, sources = dst.resolve(), {src.resolve(), layout.weights.resolve()}
    for source in sources:
        if target == source or target in source.parents or source in target.parents:
            raise ValueError(
                f"{dst} is, contains or is inside the source {src}: choose another folder"
            )
    if dst.is_dir() and not any(dst.iterdir()):
        return
    if dst.exists() or dst.is_symlink():
        if not overwrite:
            raise FileExistsError(f"{dst} exists: allow overwriting, or choose another folder")
        _check_replaceable(dst, layout)


def _check_replaceable(dst: Path, layout: Layout) -> None:
    """Overwriting removes the old folder, so all files in it must come from a conversion."""
    if dst.is_symlink() or not dst.is_dir():
        raise ValueError(f"{dst} is not a folder and is not overwritten")
    known = {CONFIG, INDEX, SCHEDULER_CONFIG, NETWORK, "scheduler", *candidates(None)}
    known |= {place.partition("/")[0] for place in layout.copies}
    strange = sorted(entry.name for entry in dst.iterdir() if entry.name not in known)
    if strange:
        raise ValueError(
            f"{dst} contains files that no conversion wrote and is not overwritten: "
            f"{listed(strange)}"
        )
