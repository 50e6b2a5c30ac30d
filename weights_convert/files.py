"""Find the file with a component's weights, and open it in any supported format.

These names are looked up in a folder, in this order (the order of diffusers, then our own two):

    diffusion_pytorch_model.safetensors.index.json    shards, listed by an index
    diffusion_pytorch_model.safetensors
    diffusion_pytorch_model.bin.index.json
    diffusion_pytorch_model.bin
    diffusion_flax_model.safetensors                  Flax's layout, written by `save_flax`
    diffusion_flax_model.orbax/                       an orbax checkpoint, written by `save_orbax`

A variant ("fp16") is placed before the last extension of torch's names. The first bytes of a file
decide its format. Models of transformers use another stem, `TRANSFORMERS`, in the first four names.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

from weights_convert.errors import faults_of, listed
from weights_convert.orbax_io import is_orbax, open_orbax
from weights_convert.rules import components, torch_tensors
from weights_convert.safetensors_io import open_safetensors
from weights_convert.state_dicts import chosen_sets
from weights_convert.tensors import Checkpoint, Stored
from weights_convert.torch_legacy import open_torch_legacy
from weights_convert.torch_zip import open_torch_zip


class Stem(NamedTuple):
    """The names that a library gives to weight files, without variant and extension."""

    safetensors: str
    bin: str


DIFFUSERS = Stem("diffusion_pytorch_model", "diffusion_pytorch_model")
TRANSFORMERS = Stem("model", "pytorch_model")
FLAX_FILE = "diffusion_flax_model.safetensors"
ORBAX_FOLDER = "diffusion_flax_model.orbax"

Name = TypeVar("Name")

_VARIANT = re.compile(r"[\w-][\w.-]*", re.ASCII)
_GIT_LFS = b"version https://git-lfs"


def find_weights(folder: str | Path, variant: str | None = None, stem: Stem = DIFFUSERS) -> Path:
    """The path to read in a component's folder: a weight file, an index of shards, or an orbax
    folder.

    `stem` is the name that the model's library gives to the files.

    Raises:
        FileNotFoundError: the folder is missing, or contains none of the names above. The message
            lists them.
        ValueError: the variant cannot be part of a file name.
    """
    check_variant(variant)
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder")
    present = sorted(entry.name for entry in folder.iterdir())
    found = chosen(present, variant, stem)
    if found is None:
        raise FileNotFoundError(_not_found(str(folder), present, variant, stem))
    return folder / found


def weight_files(
    names: Sequence[str], variant: str | None = None, stem: Stem = DIFFUSERS
) -> list[str]:
    """The files of a component to fetch, so that `find_weights` finds the weights locally: one
    file, or an index and its shards, or an orbax folder.

    `names` are relative to the component's folder. Names of files in an orbax folder include that
    folder.

    Raises:
        FileNotFoundError: none of the names is a weight file.
        ValueError: the variant cannot be part of a file name.
    """
    check_variant(variant)
    found = chosen({name.partition("/")[0] for name in names}, variant, stem)
    if found is None:
        raise FileNotFoundError(_not_found("the repository", names, variant, stem))
    if found == ORBAX_FOLDER:
        return sorted(name for name in names if name.startswith(f"{ORBAX_FOLDER}/"))
    shards = _shard_pattern(found, variant, stem)
    return [found, *sorted(name for name in names if shards and shards.fullmatch(name))]


def check_variant(variant: str | None) -> None:
    """Raises ValueError unless `variant` is None or can be part of a file name."""
    if variant is not None and not _VARIANT.fullmatch(variant):
        raise ValueError(
            f"variant must consist of letters, digits, '_', '-' and '.', such as 'fp16'; "
            f"got {variant!r}"
        )


def chosen(names: Iterable[str], variant: str | None, stem: Stem = DIFFUSERS) -> str | None:
    """The first candidate that is among these names, or None."""
    present = set(names)
    return next((name for name in candidates(variant, stem) if name in present), None)


def fallbacks(present: Mapping[Name, bool], variant: str | None) -> dict[Name, str | None]:
    """The variant to read of each component of a pipeline, from which of them have it.

    A component without it is read as it is. If none has it, all are asked for it, and the first
    that is read says what there is.
    """
    some = any(present.values())
    return {name: variant if has or not some else None for name, has in present.items()}


def candidates(variant: str | None, stem: Stem = DIFFUSERS) -> list[str]:
    """The names to look for, the preferred one first. Only torch's formats have variants."""
    dot = f".{variant}" if variant else ""
    torch = [
        f"{stem.safetensors}.safetensors.index{dot}.json",
        f"{stem.safetensors}{dot}.safetensors",
        f"{stem.bin}.bin.index{dot}.json",
        f"{stem.bin}{dot}.bin",
    ]
    return torch if variant else [*torch, FLAX_FILE, ORBAX_FOLDER]


def _not_found(where: str, names: Iterable[str], variant: str | None, stem: Stem) -> str:
    likely = [name for name in names if re.search(r"\.(safetensors|bin|pt|msgpack|json)$", name)]
    found = f"found {listed(likely)}" if likely else "found no weight files"
    kind = f" of variant {variant!r}" if variant else ""
    return (
        f"no weights{kind} in {where}: looked for {', '.join(candidates(variant, stem))}; {found}"
    )


def _shard_pattern(index: str, variant: str | None, stem: Stem) -> re.Pattern[str] | None:
    """The pattern of an index's shard names. The variant is before the number, in older files after
    it.
    """
    kind = next((kind for kind in Stem._fields if f".{kind}.index." in index), None)
    if kind is None:
        return None
    name = getattr(stem, kind)
    dot = re.escape(f".{variant}") if variant else ""
    number = r"-\d{5}-of-\d{5}"
    return re.compile(rf"{name}({dot}{number}|{number}{dot})\.{kind}")


def open_weights(path: str | Path, *, ema: bool | None = None) -> Checkpoint:
    """Open a weight file, an index of shards, or an orbax folder, as a lazy mapping from torch
    names.

    Flax formats are presented in torch's names and layout too. Old names stay as stored: `to_flax`
    renames them.

    Args:
        path: the file or folder.
        ema: where it has both, True takes the moving average and False the other weights.

    Raises:
        ValueError: the file is not a weight file, is damaged or truncated, its pickle needs
            something that is not allowed, or it has two sets of weights and `ema` is None. The
            message names the file.
        FileNotFoundError: the file does not exist.
    """
    path = Path(path)
    if ema and (path.is_dir() or path.name.endswith(".json")):
        raise ValueError(f"{path} has no moving average (EMA): only single files have one")
    if path.is_dir():
        if not is_orbax(path):
            raise ValueError(f"{path} is a folder but not an orbax checkpoint")
        return _from_flax(open_orbax(path), path)
    if path.name.endswith(".json"):
        return _open_shards(path)
    with ExitStack() as opened, faults_of(path):
        checkpoint = opened.enter_context(open_file(path)).chosen(ema)
        opened.pop_all()  # it stays open
        return checkpoint


def open_file(path: Path, *, training: bool = False) -> Checkpoint:
    """Like `open_weights`, of one file. `training` is that of `open_torch_zip`."""
    with path.open("rb") as file:
        start = file.read(max(len(_GIT_LFS), 9))
    if start.startswith(_GIT_LFS):
        raise ValueError(
            f"{path} is a git-lfs pointer, not the weights: fetch them with git lfs pull"
        )
    # safetensors first: its first eight bytes are a length and may equal the magic bytes below.
    if start[8:9] == b"{":
        checkpoint, is_flax = open_safetensors(path)
        return _from_flax(checkpoint, path) if is_flax else _parted(checkpoint)
    if start.startswith(b"PK"):
        return open_torch_zip(path, training=training)
    if start[:1] == b"\x80":
        return open_torch_legacy(path, training=training)
    raise ValueError(
        f"{path} is neither a safetensors file nor a file of torch.save, or it is truncated"
    )


def _parted(checkpoint: Checkpoint) -> Checkpoint:
    """A checkpoint whose moving average, if its names say that it has one, is apart."""
    plain, average, is_average = chosen_sets(checkpoint.stored, None)
    return Checkpoint(plain, checkpoint.close, average=average, is_average=is_average)


def _from_flax(checkpoint: Checkpoint, path: Path) -> Checkpoint:
    """A checkpoint in Flax's names and layout, presented in torch's."""
    with ExitStack() as opened:
        opened.enter_context(checkpoint)
        leaves = {components(name): tensor for name, tensor in checkpoint.stored.items()}
        with faults_of(path):
            tensors = torch_tensors(leaves)
        return Checkpoint(tensors, opened.pop_all().close)


def _open_shards(index: Path) -> Checkpoint:
    """The tensors of an index, each read from the shard that the index names."""
    places = weight_map(index)
    with ExitStack() as opened:
        shards = {
            name: opened.enter_context(open_weights(index.parent / name))
            for name in sorted(set(places.values()))
        }
        faults = [
            f"{name} is not in {place}"
            for name, place in places.items()
            if name not in shards[place].stored
        ]
        faults += [
            f"{name} of {place} is not in the index"
            for place, shard in shards.items()
            for name in shard.stored
            if places.get(name) != place
        ]
        if faults:
            raise ValueError(f"{index} does not match its shards: {listed(faults)}")
        stored: dict[str, Stored] = {
            name: shards[place].stored[name] for name, place in places.items()
        }
        return Checkpoint(stored, opened.pop_all().close)


def weight_map(index: Path) -> dict[str, str]:
    """An index's map from tensors to shards. Each shard is a file in the folder of the index."""
    try:
        places: Any = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        strings = all(isinstance(place, str) for place in places.values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ValueError(f"{index} is not an index of shards: it has no weight_map") from None
    if not strings:
        raise ValueError(f"{index}: weight_map must name a file for each tensor")
    places = cast(dict[str, str], places)
    names = sorted(set(places.values()))
    outside = [name for name in names if not _plain(name)]
    if outside:
        raise ValueError(f"{index} names shards outside its folder: {listed(outside)}")
    indexes = [name for name in names if name.endswith(".json")]
    if indexes:
        raise ValueError(f"{index} names other indexes as shards: {listed(indexes)}")
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing:
        raise ValueError(f"{index} names shards that do not exist: {listed(missing)}")
    return places


def _plain(name: str) -> bool:
    """Whether the name is a plain file name, without a path, on any operating system."""
    return name not in ("", ".", "..") and not re.search(r"[/\\:\0]", name)
