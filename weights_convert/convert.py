"""Convert a whole folder: the weights of every network under current names in one of three formats,
and the configs that belong to them. A model in one file becomes such a folder.
"""

import os
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from weights_convert import rules
from weights_convert.errors import faults_of, listed
from weights_convert.files import DIFFUSERS, TRANSFORMERS, candidates, open_weights
from weights_convert.json_files import read_json, write_json
from weights_convert.layout import (
    CONFIG,
    INDEX,
    NETWORK,
    SCHEDULER_CONFIG,
    Layout,
    Network,
    component_of,
    locate,
)
from weights_convert.names import current_config
from weights_convert.orbax_io import is_orbax
from weights_convert.prerelease_layout import old_network, prerelease_layout
from weights_convert.single_file import is_single_file, open_single_file
from weights_convert.single_layout import SingleOptions, single_layout
from weights_convert.tensors import BFLOAT16, Array, Checkpoint, Stored
from weights_convert.write import replacing, write_flax, write_orbax_folder, write_torch

Kind: TypeAlias = Literal["flax", "orbax", "diffusers"]
Dtype: TypeAlias = Literal["float32", "float16", "bfloat16"]
Leaves: TypeAlias = Mapping[rules.Path, Stored]
Check: TypeAlias = Callable[[Path, Mapping[str, Any], Checkpoint], None]
"""Called with a network's weight file, its config and its tensors."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One network of a conversion: source, destination and sizes. A tensor that is stored under two
    names counts once.
    """

    source: Path
    destination: Path
    tensors: int
    params: int
    bytes: int
    dtypes: Mapping[str, int]  # how many tensors have which dtype

    def __str__(self) -> str:
        dtypes = ", ".join(
            name if len(self.dtypes) == 1 else f"{count} {name}"
            for name, count in sorted(self.dtypes.items())
        )
        size = f"{self.tensors:,} tensors, {self.params:,} params, {dtypes}, {self.bytes:,} bytes"
        return f"{self.source} -> {self.destination}: {size}"


@dataclass(frozen=True, kw_only=True)
class Report:
    """The result of a conversion: one part for each network, and what the result lacks. As text, it
    has a line for each.
    """

    parts: tuple[Part, ...]
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "\n".join([*map(str, self.parts), *self.notes])


def convert(
    src: str | Path,
    dst: str | Path,
    *,
    to: Kind | None = None,
    overwrite: bool = False,
    variant: str | None = None,
    dtype: Dtype | None = None,
    component: str | None = None,
    single: SingleOptions | None = None,
    check: Check | None = None,
) -> Report:
    """Convert the weights at `src` into the new folder `dst`, with the configs that loading needs.

    The stored dtype stays unless one is given. A component becomes a component. A pipeline, nested
    or flat, becomes a nested pipeline: every component with weights is converted, and the others
    are copied. A model in one file becomes a pipeline too. Peak memory is about two
    tensors. For orbax it is about 4/3 of the largest component, because orbax takes the whole tree
    at once.

    Args:
        src: a component's folder, a pipeline's folder, a weight file, an index of shards, an orbax
            folder, or a model in one file (docs/checkpoints.md lists the layouts).
        dst: the folder to create. It appears only when it is complete.
        to: "flax" (our safetensors), "orbax", or "diffusers" (a folder that diffusers loads).
            Default: "diffusers" from a model in one file, else "flax".
        overwrite: overwrite an earlier result at `dst`.
        variant: which of the weights in a folder to read ("fp16"). Of a pipeline, a component
            without it is read as it is.
        dtype: "float32", "float16" or "bfloat16". Every tensor is rounded to it.
        component: convert only this component of a pipeline, into a component's folder.
        single: options of a model in one file; `ema` also of other weight files.
        check: raises for weights that do not fit their config; called before anything is written.

    Raises:
        ValueError: weights, configs or names cannot be converted; a number is too large for
            `dtype`; `dst` is `src`, is inside it or contains it; `dst` contains files that no
            conversion wrote.
        OSError: `src` is missing, or `dst` exists or cannot be written.
    """
    src, dst = Path(src), Path(os.path.abspath(dst))
    if to is not None and to not in get_args(Kind):
        raise ValueError(f"to={to!r}: must be one of {', '.join(get_args(Kind))}")
    if dtype is not None and dtype not in get_args(Dtype):
        raise ValueError(f"dtype={dtype!r}: must be one of {', '.join(get_args(Dtype))}")
    with ExitStack() as opened:
        options = single or SingleOptions()
        if variant is not None and (src.is_file() or is_orbax(src)):
            raise ValueError(
                f"variant={variant!r} selects among the files of a folder, but {src} is one "
                "checkpoint"
            )
        is_single = src.is_file() and is_single_file(src)
        old = old_network(src)
        if is_single:
            layout = _single(src, component, options, opened)
        elif options.given:
            if src.is_file():
                open_weights(src, ema=options.ema).close()  # a damaged file: its own error
            raise ValueError(
                f"{src} is not a model in one file of another layout than diffusers': "
                f"{listed(options.given)} cannot be used"
            )
        elif old is not None:
            if component is not None:
                raise ValueError(f"{src} has one network: component={component!r} is not needed")
            layout = prerelease_layout(src, old, variant, options.ema)
        else:
            inner = src if component is None else component_of(src, component)
            layout = locate(inner, variant, options.ema)
        _check_destination(src, layout, dst, overwrite)
        planned = [
            (network, _planned(network, opened.enter_context(network.open()), dtype, check))
            for network in layout.networks
        ]
        dst.parent.mkdir(parents=True, exist_ok=True)
        with replacing(dst) as partial:
            _write_others(partial, layout)
            kind: Kind = to or ("diffusers" if is_single or old else "flax")
            written = [_write(partial, network, leaves, kind) for network, leaves in planned]
        parts = [
            _part(network, leaves, dst / path.relative_to(partial))
            for (network, leaves), path in zip(planned, written, strict=True)
        ]
    return Report(parts=tuple(parts), notes=layout.notes)


def _single(src: Path, component: str | None, options: SingleOptions, opened: ExitStack) -> Layout:
    overrides = dict(options.overrides)
    if (predicted := options.prediction_type) is not None:
        scheduler = {**overrides.get("scheduler", {}), "prediction_type": predicted}
        overrides["scheduler"] = scheduler
    file = opened.enter_context(
        open_single_file(
            src,
            ema=options.ema,
            without_depth_estimator=options.without_depth_estimator,
            overrides=overrides,
            layout=options.layout,
            settings=options.settings,
        )
    )
    tokenizer = None if options.tokenizer is None else Path(options.tokenizer)
    return single_layout(file, tokenizer, component)


def _planned(
    network: Network, checkpoint: Checkpoint, dtype: Dtype | None, check: Check | None
) -> Leaves:
    """What will be written of a network; nothing is read yet."""
    if not checkpoint:
        raise ValueError(f"{network.weights} contains no tensors")
    if check is not None:
        check(network.weights, network.config, checkpoint)
    with faults_of(network.weights):
        leaves = rules.flax_leaves(checkpoint)
    if dtype is None:
        return leaves
    wanted = BFLOAT16 if dtype == "bfloat16" else np.dtype(dtype)
    return {path: _cast(path, leaf, wanted) for path, leaf in leaves.items()}


def _part(network: Network, leaves: Leaves, written: Path) -> Part:
    return Part(
        source=network.weights,
        destination=written,
        tensors=len(leaves),
        params=sum(tensor.size for tensor in leaves.values()),
        bytes=sum(tensor.nbytes for tensor in leaves.values()),
        dtypes=Counter(str(tensor.dtype) for tensor in leaves.values()),
    )


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


def _write_others(folder: Path, layout: Layout) -> None:
    """Copy and make all files of the new folder but the weights."""
    for place, origin in layout.copies.items():
        target = folder / place
        target.parent.mkdir(parents=True, exist_ok=True)
        if origin.is_dir():
            shutil.copytree(origin, target, copy_function=shutil.copyfile)
            continue
        shutil.copyfile(origin, target)
        if origin.name in (CONFIG, SCHEDULER_CONFIG):
            config = read_json(origin)
            if (current := current_config(config)) != config:
                write_json(target, current)
    for place, content in layout.made.items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        write_json(folder / place, content)


def _write(folder: Path, network: Network, leaves: Leaves, to: Kind) -> Path:
    """Write a network's weights; returns the weight file or orbax folder."""
    component = folder / network.subfolder
    component.mkdir(parents=True, exist_ok=True)
    if to == "diffusers":
        return write_torch(component, rules.torch_tensors(leaves), stem=network.stem)
    return write_flax(component, leaves) if to == "flax" else write_orbax_folder(component, leaves)


def _check_destination(src: Path, layout: Layout, dst: Path, overwrite: bool) -> None:
    """Raises unless `dst` is new or empty, or is an earlier result and `overwrite` is set."""
    target = dst.resolve()
    for source in {src.resolve(), *(network.weights.resolve() for network in layout.networks)}:
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
    known = {CONFIG, INDEX, SCHEDULER_CONFIG, NETWORK, "scheduler"}
    known |= {name for stem in (DIFFUSERS, TRANSFORMERS) for name in candidates(None, stem)}
    known |= {place.partition("/")[0] for place in (*layout.copies, *layout.made)}
    strange = sorted(entry.name for entry in dst.iterdir() if entry.name not in known)
    if strange:
        raise ValueError(
            f"{dst} contains files that no conversion wrote and is not overwritten: "
            f"{listed(strange)}"
        )
