"""`model_index.json`: which pipeline a folder holds, and the class of each component.

    {"_class_name": "DDPMPipeline", "scheduler": ["diffusers", "DDPMScheduler"],
     "unet": ["diffusers", "UNet2DModel"]}

Names that start with an underscore are notes; a component that is absent is [null, null].
"""

import os
from pathlib import Path
from typing import Any, NamedTuple

from ddpm_jax.config import read_json, write_json

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


def write(folder: str | os.PathLike[str], index: ModelIndex) -> None:
    """Writes the index into a folder, as diffusers reads it."""
    content = {
        "_class_name": index.pipeline,
        "scheduler": ["diffusers", index.scheduler],
        "unet": ["diffusers", UNET],
    }
    write_json(Path(folder) / NAME, content)


def _class_name(entry: Any) -> str | None:
    """The class in [library, class]; None for [null, null] and for what is no component."""
    if isinstance(entry, list) and len(entry) == 2 and isinstance(entry[1], str):
        return entry[1]
    return None
