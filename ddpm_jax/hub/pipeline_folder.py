"""A pipeline's folder: its `model_index.json`, and how it is put in place.

The index names the pipeline that the folder holds, and the class of each component:

    {"_class_name": "DDPMPipeline", "scheduler": ["diffusers", "DDPMScheduler"],
     "unet": ["diffusers", "UNet2DModel"]}

Names that start with an underscore are notes; a component that is absent is [null, null].
"""

import os
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from ddpm_jax.hub.component import ComponentFiles
from ddpm_jax.hub.files import read_json, write_json
from ddpm_jax.hub.hub import MODEL_INDEX
from weights_convert import find_weights

T = TypeVar("T")


class ModelIndex(NamedTuple):
    """What `model_index.json` says.

    Attributes:
        path: of the file.
        pipeline: name of the pipeline's class.
        components: name of the class of each component that is present.
    """

    path: Path
    pipeline: str
    components: Mapping[str, str]


def read(folder: str | os.PathLike[str]) -> ModelIndex:
    """Reads the index of a pipeline.

    Raises:
        ValueError: no such file, or no class name in it.
    """
    path = Path(folder) / MODEL_INDEX
    content = read_json(path)
    pipeline = content.get("_class_name")
    if not isinstance(pipeline, str):
        raise ValueError(f"{path}: it has no _class_name")
    entries = {
        name: _class_name(entry) for name, entry in content.items() if not name.startswith("_")
    }
    return ModelIndex(path, pipeline, {name: one for name, one in entries.items() if one})


def check(index: ModelIndex, components: Collection[ComponentFiles]) -> None:
    """Whether a pipeline with these components can be made of the folder.

    Raises:
        ValueError: it has other components, or of other classes; all faults at once.
    """
    known = {files.folder: files for files in components}
    faults = [
        f"its {name} is a {found}, and only {known[name].classes[0]} is supported"
        for name, found in index.components.items()
        if name in known and known[name].classes and found not in known[name].classes
    ]
    others = sorted(set(index.components) - set(known))
    if others:
        listed = ", ".join(f"{name} ({index.components[name]})" for name in others)
        faults.append(f"it has components that this pipeline lacks: {listed}")
    if faults:
        raise ValueError(f"{index.path} ({index.pipeline}): {'; '.join(faults)}")


def named_class(
    index: ModelIndex, component: ComponentFiles, classes: Sequence[type[T]]
) -> type[T]:
    """The one of `classes` that an index names for a component.

    Raises:
        ValueError: it names none, or one that is not among ours.
    """
    kinds, what = {kind.__name__: kind for kind in classes}, component.folder
    found = index.components.get(what)
    if found is None:
        raise ValueError(f"{index.path} has no {what}: pass {what}=")
    if found not in kinds:
        raise ValueError(
            f"{index.path.parent} asks for a {found}, which is not among {', '.join(kinds)}: "
            f"pass {what}="
        )
    return kinds[found]


def write(folder: str | os.PathLike[str], pipeline: str, components: Mapping[str, str]) -> None:
    """Writes the index into a folder, as diffusers reads it: class names by component."""
    entries = {name: ["diffusers", one] for name, one in components.items()}
    write_json(Path(folder) / MODEL_INDEX, {"_class_name": pipeline, **entries})


@contextmanager
def replacing_files(
    path: str | os.PathLike[str], components: Collection[ComponentFiles], variant: str | None
) -> Iterator[Path]:
    """A folder to write a pipeline into, whose files replace those in `path`.

    Nothing appears at `path` before all is written. If it exists, files of the same names are
    replaced one by one and others stay.

    Raises:
        ValueError: `path` is a file, or holds weights that would be read in place of the new ones.
    """
    target = Path(path)
    _check_target(target, components, variant)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        yield partial
        partial.chmod(0o755)  # mkdtemp's folders are private
        _move_into(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _check_target(
    target: Path, components: Collection[ComponentFiles], variant: str | None
) -> None:
    """Raises ValueError unless a pipeline saved there would be read back."""
    if target.exists() and not target.is_dir():
        raise ValueError(f"{target} is a file; a pipeline is saved as a folder")
    for files in components:
        if files.weights is None:
            continue
        try:
            present = find_weights(target / files.folder, variant, files.weights)
        except FileNotFoundError:
            continue
        # An index of shards comes before the single file that is written here.
        if present.name.endswith(".json") and "safetensors" in present.name:
            raise ValueError(f"{present} would be read in place of what is saved: remove it first")


def _move_into(partial: Path, target: Path) -> None:
    """Moves a complete folder into place: at once, or file by file into one that exists."""
    if not target.exists():
        partial.rename(target)
        return
    files = [file for file in partial.rglob("*") if file.is_file()]
    # The index comes last: a reader who sees it sees the files that it names.
    for file in sorted(files, key=lambda file: (file.name == MODEL_INDEX, file)):
        destination = target / file.relative_to(partial)
        destination.parent.mkdir(parents=True, exist_ok=True)
        os.replace(file, destination)


def _class_name(entry: Any) -> str | None:
    """The class in [library, class]; None for [null, null] and for what is not a component."""
    if isinstance(entry, list) and len(entry) == 2 and isinstance(entry[1], str):
        return entry[1]
    return None
