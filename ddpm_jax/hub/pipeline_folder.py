"""A pipeline's folder: its `model_index.json`, and how the folder is written.

The index names the pipeline's class, and the class of each component:

    {"_class_name": "DDPMPipeline", "scheduler": ["diffusers", "DDPMScheduler"],
     "unet": ["diffusers", "UNet2DModel"]}

Names with a leading underscore are not components. An absent component is [null, null].
"""

import os
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from ddpm_jax.hub.component import MODEL_INDEX, ComponentFiles
from ddpm_jax.hub.files import listed, read_json, write_json
from weights_convert import find_weights
from weights_convert.layout import LAYOUT
from weights_convert.names import OLD_CLASSES

T = TypeVar("T")


class ModelIndex(NamedTuple):
    """The content of `model_index.json`.

    Attributes:
        path: path of the file.
        pipeline: class name of the pipeline.
        components: class name of each component that is present.
    """

    path: Path
    pipeline: str
    components: Mapping[str, str]


def read(folder: str | os.PathLike[str]) -> ModelIndex:
    """Reads the index of a pipeline.

    Raises:
        ValueError: the file is missing or damaged, or has no class name.
    """
    path = Path(folder) / MODEL_INDEX
    content = read_json(path)
    pipeline = content.get("_class_name")
    if isinstance(pipeline, list) and pipeline:
        pipeline = pipeline[-1]  # [file, class] of a custom pipeline
    if not isinstance(pipeline, str):
        raise ValueError(f"{path} has no _class_name")
    entries = {
        name: _class_name(entry) for name, entry in content.items() if not name.startswith("_")
    }
    return ModelIndex(
        path,
        OLD_CLASSES.get(pipeline, pipeline),
        {name: one for name, one in entries.items() if one},
    )


def check(
    index: ModelIndex, components: Collection[ComponentFiles], unread: Collection[str] = ()
) -> None:
    """Checks that the folder has only these components, in supported classes, and `unread` ones.

    Raises:
        ValueError: it has other components, or components of other classes. Lists all faults.
    """
    known = {files.folder: files for files in components}
    faults = [
        f"its {name} is a {found}, but only {known[name].classes[0]} is supported"
        for name, found in index.components.items()
        if name in known and known[name].classes and found not in known[name].classes
    ]
    others = sorted(set(index.components) - set(known) - set(unread))
    if others:
        named = listed(f"{name} ({index.components[name]})" for name in others)
        faults.append(f"it has components that this pipeline does not support: {named}")
    if faults:
        raise ValueError(f"{index.path} ({index.pipeline}): {'; '.join(faults)}")


def named_class(
    index: ModelIndex, component: ComponentFiles, classes: Sequence[type[T]]
) -> type[T]:
    """The one of `classes` that an index names for a component.

    Raises:
        ValueError: it names no class, or a class that is not in `classes`.
    """
    kinds, what = {kind.__name__: kind for kind in classes}, component.folder
    found = index.components.get(what)
    if found is None:
        raise ValueError(f"{index.path} has no {what}: pass {what}=")
    if found not in kinds:
        raise ValueError(
            f"{index.path.parent} names a {found}, which is not one of {', '.join(kinds)}: "
            f"pass {what}="
        )
    return kinds[found]


def write(folder: str | os.PathLike[str], pipeline: str, components: Mapping[str, Any]) -> None:
    """Writes the index into a folder in diffusers' format.

    Components are given by name as (library, class), None for an absent one; other values, such as
    flags of a pipeline, are written as they are.
    """
    entries = {
        name: [None, None] if one is None else list(one) if isinstance(one, tuple) else one
        for name, one in components.items()
    }
    own = {"_class_name": pipeline, "_diffusers_version": LAYOUT}
    write_json(Path(folder) / MODEL_INDEX, own | entries)


@contextmanager
def replacing_files(
    path: str | os.PathLike[str], components: Collection[ComponentFiles], variant: str | None
) -> Iterator[Path]:
    """A folder to write a pipeline into. At the end of the block its files move to `path`.

    Nothing changes at `path` before everything is written. If `path` exists, files with the same
    names are overwritten one by one, and others stay.

    Raises:
        ValueError: `path` is a file, or has weights that would be read instead of the new ones.
    """
    target = Path(path)
    _check_target(target, components, variant)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        yield partial
        partial.chmod(0o755)  # mkdtemp makes private folders
        _move_into(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _check_target(
    target: Path, components: Collection[ComponentFiles], variant: str | None
) -> None:
    """Raises ValueError unless a pipeline saved to `target` could be loaded."""
    if target.exists() and not target.is_dir():
        raise ValueError(f"{target} is a file; a pipeline is saved as a folder")
    for files in components:
        if files.weights is None:
            continue
        try:
            present = find_weights(target / files.folder, variant, files.weights)
        except FileNotFoundError:
            continue
        # An index of shards has priority over the single file that is written here.
        if present.name.endswith(".json") and "safetensors" in present.name:
            raise ValueError(f"{present} would be read instead of the new weights: remove it first")


def _move_into(partial: Path, target: Path) -> None:
    """Moves a complete folder to `target`: at once, or file by file if `target` exists."""
    if not target.exists():
        partial.rename(target)
        return
    files = [file for file in partial.rglob("*") if file.is_file()]
    # The index moves last, so that the files that it names exist when a reader finds it.
    for file in sorted(files, key=lambda file: (file.name == MODEL_INDEX, file)):
        destination = target / file.relative_to(partial)
        destination.parent.mkdir(parents=True, exist_ok=True)
        os.replace(file, destination)


def _class_name(entry: Any) -> str | None:
    """The class in [library, class]; None for [null, null] and for other values."""
    if isinstance(entry, list) and len(entry) == 2 and isinstance(entry[1], str):
        return entry[1]
    return None
