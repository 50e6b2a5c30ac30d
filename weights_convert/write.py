"""Write a params tree in torch's layout, in Flax's layout, or as an orbax checkpoint. The result
appears only when it is complete.

Each file or folder is written to a hidden folder next to its destination and then renamed. A
process that is killed leaves at most that folder (`.<name>.<random>.partial`).
"""

import shutil
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from weights_convert import rules
from weights_convert.errors import listed
from weights_convert.files import DIFFUSERS, FLAX_FILE, ORBAX_FOLDER, Stem, check_variant, chosen
from weights_convert.orbax_io import write_orbax
from weights_convert.safetensors_io import write_safetensors
from weights_convert.tensors import Stored, as_stored

Leaves = Mapping[rules.Path, Any]


def save_torch(
    folder: str | Path,
    params: rules.Params,
    *,
    variant: str | None = None,
    stem: Stem = DIFFUSERS,
) -> Path:
    """Write `diffusion_pytorch_model[.variant].safetensors` into a folder, for diffusers to load;
    returns its path.

    The folder is created if it is missing. An older file with this name is overwritten. One tensor
    at a time is copied.

    Raises:
        ValueError: leaves have no rule (all are listed), the folder contains weights that would be
            read instead of these, or the variant cannot be part of a file name.
    """
    tensors = rules.torch_tensors(rules.flat(params))
    return write_torch(Path(folder), tensors, variant=variant, stem=stem)


def save_flax(folder: str | Path, params: rules.Params) -> Path:
    """Like `save_torch`, but write `diffusion_flax_model.safetensors`: Flax's leaf names, joined
    with dots, and Flax's layout.
    """
    return write_flax(Path(folder), rules.flat(params))


def save_orbax(folder: str | Path, params: rules.Params) -> Path:
    """Like `save_torch`, but write the nested params tree as the orbax checkpoint
    `diffusion_flax_model.orbax`.

    Raises:
        ValueError: as `save_torch`; also for an empty tensor, which orbax cannot store.
    """
    return write_orbax_folder(Path(folder), rules.flat(params))


def write_torch(
    folder: Path,
    tensors: Mapping[str, Stored],
    *,
    variant: str | None = None,
    stem: Stem = DIFFUSERS,
) -> Path:
    """Like `save_torch`, from tensors under their torch names. Each is read when it is written."""
    check_variant(variant)
    path = folder / f"{stem.safetensors}{f'.{variant}' if variant else ''}.safetensors"
    with _in_folder(path, variant, stem) as partial:
        write_safetensors(partial, tensors, {"format": "pt"})
    return path


def write_flax(folder: Path, leaves: Leaves) -> Path:
    """Like `save_flax`, from leaves by their path. Each is read when it is written."""
    rules.torch_tensors(leaves)  # raises for leaves that could not be read back
    path = folder / FLAX_FILE
    stored = {".".join(names): as_stored(leaf) for names, leaf in leaves.items()}
    with _in_folder(path) as partial:
        write_safetensors(partial, stored, {"format": "flax"})
    return path


def write_orbax_folder(folder: Path, leaves: Leaves) -> Path:
    """Like `save_orbax`, from leaves by their path. orbax needs all of them in memory."""
    tensors = rules.torch_tensors(leaves)
    empty = [name for name, tensor in tensors.items() if tensor.size == 0]
    if empty:
        raise ValueError(f"orbax cannot store empty tensors: {listed(empty)}")
    path = folder / ORBAX_FOLDER
    with _in_folder(path) as partial:
        write_orbax(partial, rules.nested(leaves))
    return path


@contextmanager
def _in_folder(
    path: Path, variant: str | None = None, stem: Stem = DIFFUSERS
) -> Generator[Path, None, None]:
    """Like `replacing`, but create the folder if it is missing. Raises ValueError if the folder
    contains weights that a reader would prefer to `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    names = {entry.name for entry in path.parent.iterdir()} | {path.name}
    first = chosen(names, variant, stem)
    if first != path.name:
        raise ValueError(
            f"{path.parent} contains {first}, which is read before {path.name}: remove it"
        )
    with replacing(path) as partial:
        yield partial


@contextmanager
def replacing(path: Path) -> Generator[Path, None, None]:
    """A path to write a file or folder to. It replaces `path` when the block ends without an error.

    The old content stays until then. After an error, including an interrupt, nothing has changed.
    """
    stage = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent))
    try:
        yield stage / path.name
        if path.is_dir() and not path.is_symlink():
            path.rename(stage / "former")
        try:
            (stage / path.name).replace(path)
        except BaseException:
            if (stage / "former").exists():
                (stage / "former").rename(path)
            raise
    finally:
        shutil.rmtree(stage, ignore_errors=True)
