"""A pipeline's folder: its `model_index.json`, and how it comes into place.

The index says which pipeline the folder holds, and the class of each component:

    {"_class_name": "DDPMPipeline", "scheduler": ["diffusers", "DDPMScheduler"],
     "unet": ["diffusers", "UNet2DModel"]}

Names that start with an underscore are notes; a component that is absent is [null, null].
"""

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from ddpm_jax.hub.config import read_json, write_json
from weights_convert import find_weights

T = TypeVar("T")
NAME = "model_index.json"
UNET = "UNet2DModel"


class ModelIndex(NamedTuple):
    """What the file says.

    Attributes:
        pipeline: name of the pipeline's class.
        scheduler: name of the scheduler's class; None where there is no scheduler.
    """

    pipeline: str
    scheduler: str | None


def read(folder: str | os.PathLike[str]) -> ModelIndex:
    """Reads the index of a pipeline whose only components are a `UNet2DModel` and a scheduler.

    Raises:
        ValueError: no such file, no class name in it, or other components; all faults at once.
    """
    path = Path(folder) / NAME
    content = read_json(path)
    components = {
        name: _class_name(entry) for name, entry in content.items() if not name.startswith("_")
    }
    present = {name: kind for name, kind in components.items() if kind is not None}
    faults = []
    pipeline = content.get("_class_name")
    if not isinstance(pipeline, str):
        faults.append("it has no _class_name")
    if present.get("unet", UNET) != UNET:
        faults.append(f"its unet is a {present['unet']}, and only {UNET} is supported")
    others = sorted(set(present) - {"unet", "scheduler"})
    if others:
        listed = ", ".join(f"{name} ({present[name]})" for name in others)
        faults.append(f"it has components that these pipelines lack: {listed}")
    if faults:
        raise ValueError(f"{path} ({pipeline}): {'; '.join(faults)}")
    return ModelIndex(str(pipeline), present.get("scheduler"))


def scheduler_class(folder: Path, index: ModelIndex, classes: Sequence[type[T]]) -> type[T]:
    """The one of `classes` that an index names as its scheduler.

    Raises:
        ValueError: it names none, or one that is not among ours.
    """
    kinds = {kind.__name__: kind for kind in classes}
    if index.scheduler is None:
        raise ValueError(f"{folder / NAME} has no scheduler: pass scheduler=")
    if index.scheduler not in kinds:
        raise ValueError(
            f"{folder} asks for a {index.scheduler}, which is not among {', '.join(kinds)}: "
            "pass scheduler="
        )
    return kinds[index.scheduler]


def write(folder: str | os.PathLike[str], index: ModelIndex) -> None:
    """Writes the index into a folder, as diffusers reads it."""
    content = {
        "_class_name": index.pipeline,
        "scheduler": ["diffusers", index.scheduler],
        "unet": ["diffusers", UNET],
    }
    write_json(Path(folder) / NAME, content)


@contextmanager
def written_beside(path: str | os.PathLike[str], variant: str | None) -> Iterator[Path]:
    """A folder to write a pipeline into, which then takes the place of `path`.

    Nothing appears at `path` before all is written. If it exists, files of the same names are
    replaced one by one and others stay.

    Raises:
        ValueError: `path` is a file, or holds weights that would be read in place of the new ones.
    """
    target = Path(path)
    _check_target(target, variant)
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        yield beside
        beside.chmod(0o755)  # mkdtemp's folders are private
        _move_into(beside, target)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _check_target(target: Path, variant: str | None) -> None:
    """Raises ValueError unless a pipeline saved there would be read back."""
    if target.exists() and not target.is_dir():
        raise ValueError(f"{target} is a file; a pipeline is saved as a folder")
    try:
        present = find_weights(target / "unet", variant)
    except FileNotFoundError:
        return
    # An index of shards comes before the single file that is written here.
    if present.name.endswith(".json") and "safetensors" in present.name:
        raise ValueError(f"{present} would be read in place of what is saved: remove it first")


def _move_into(beside: Path, target: Path) -> None:
    """Moves a complete folder into place: at once, or file by file into one that exists."""
    if not target.exists():
        beside.rename(target)
        return
    files = [file for file in beside.rglob("*") if file.is_file()]
    # The index comes last: whoever sees it sees the files that it speaks of.
    for file in sorted(files, key=lambda file: (file.name == NAME, file)):
        place = target / file.relative_to(beside)
        place.parent.mkdir(parents=True, exist_ok=True)
        os.replace(file, place)


def _class_name(entry: Any) -> str | None:
    """The class in [library, class]; None for [null, null] and for what is no component."""
    if isinstance(entry, list) and len(entry) == 2 and isinstance(entry[1], str):
        return entry[1]
    return None
