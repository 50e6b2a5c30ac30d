"""The layout of SRC: a weight file, a component's folder, or a pipeline's folder, nested or flat;
and the files to copy with the weights.

    at SRC                                                            at DST
    component   config.json, <weights>                                the same
    nested      model_index.json, unet/, scheduler/, others           the same
    flat        model_index.json, config.json, <weights>,             as nested
                scheduler_config.json
    file        <weights>, and config.json if it is in that folder    as a component

`id2label.json`, the names of a pipeline's classes, is copied too.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from weights_convert.errors import listed
from weights_convert.files import find_weights
from weights_convert.names import OLD_CLASSES
from weights_convert.orbax_io import is_orbax

NETWORK, NETWORK_CLASS = "unet", "UNet2DModel"
"""The component that is converted, and its class if its config names none; others are copied."""

CONFIG = "config.json"
INDEX = "model_index.json"
SCHEDULER_CONFIG = "scheduler_config.json"
CLASS_NAMES = "id2label.json"

# The pipeline of each scheduler, for a folder that has both components but no model_index.json.
_PIPELINES = {"DDIMScheduler": "DDIMPipeline", "PNDMScheduler": "PNDMPipeline"}


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where the weights are, their subfolder in the output, and the files to copy."""

    weights: Path
    subfolder: str = ""
    # path in the output -> file or folder
    copies: dict[str, Path] = field(default_factory=dict[str, Path])
    index: dict[str, Any] | None = None  # the content of the output's model_index.json


def locate(src: Path, variant: str | None) -> Layout:
    """Find the weights at `src` and the files to copy with them.

    Raises:
        FileNotFoundError: `src` does not exist, or has no weights.
        ValueError: a folder has no config.json, a JSON file is damaged, or model_index.json names
            components that do not exist.
    """
    if not src.exists():
        raise FileNotFoundError(f"{src} does not exist")
    if src.is_file() or is_orbax(src):
        return _lone_weights(src, variant)
    if (src / NETWORK).is_dir():
        return _pipeline(src, src / NETWORK, src / "scheduler" / SCHEDULER_CONFIG, variant)
    if (src / INDEX).is_file() or (src / SCHEDULER_CONFIG).is_file():
        return _pipeline(src, src, src / SCHEDULER_CONFIG, variant)
    weights = find_weights(src, variant)
    return Layout(weights=weights, copies={CONFIG: _config(src)})


def _lone_weights(src: Path, variant: str | None) -> Layout:
    if variant is not None:
        raise ValueError(
            f"variant={variant!r} selects among the files of a folder, but {src} is one checkpoint"
        )
    config = src.parent / CONFIG
    return Layout(weights=src, copies={CONFIG: config} if config.is_file() else {})


def _pipeline(src: Path, network: Path, scheduler: Path, variant: str | None) -> Layout:
    copies = {f"{NETWORK}/{CONFIG}": _config(network)}
    if scheduler.is_file():
        copies[f"scheduler/{SCHEDULER_CONFIG}"] = scheduler
    if (src / CLASS_NAMES).is_file():
        copies[CLASS_NAMES] = src / CLASS_NAMES
    index = _index(src, network / CONFIG, scheduler)
    if index is not None:
        copies |= _other_components(src, index)
    weights = find_weights(network, variant)
    return Layout(weights=weights, subfolder=NETWORK, copies=copies, index=index)


def _config(folder: Path) -> Path:
    config = folder / CONFIG
    if not config.is_file():
        raise ValueError(f"{folder} has no {CONFIG}, so the result could not be loaded")
    _class_name(config)
    return config


def _index(src: Path, network: Path, scheduler: Path) -> dict[str, Any] | None:
    """The pipeline's index, with diffusers as the library of both components. If the file is
    missing and both components exist, the index is made from their configs.
    """
    has_index, has_scheduler = (src / INDEX).is_file(), scheduler.is_file()
    if not has_index and not has_scheduler:
        return None
    index = read_config(src / INDEX) if has_index else {}
    if has_scheduler:
        method = _class_name(scheduler) or "DDPMScheduler"
        index["scheduler"] = ["diffusers", method]
        index.setdefault("_class_name", _PIPELINES.get(method, "DDPMPipeline"))
    found = _class_name(network) or NETWORK_CLASS
    index[NETWORK] = ["diffusers", OLD_CLASSES.get(found, found)]
    pipeline = index.get("_class_name")
    if isinstance(pipeline, str):
        index["_class_name"] = OLD_CLASSES.get(pipeline, pipeline)
    return index


def _other_components(src: Path, index: dict[str, Any]) -> dict[str, Path]:
    """The folders of the index's other components, which are copied unchanged."""
    needed = [
        name
        for name, entry in index.items()
        if name != NETWORK and isinstance(entry, list) and entry and entry[0] is not None
    ]
    found = {name: src / name for name in needed if _is_component(src, name)}
    present = {*found, "scheduler"} if "scheduler" in needed and _has_scheduler(src) else set(found)
    missing = [name for name in needed if name not in present]
    if missing:
        raise ValueError(f"{src / INDEX} names components that do not exist: {listed(missing)}")
    return {name: folder for name, folder in found.items() if name != "scheduler"}


def _is_component(src: Path, name: str) -> bool:
    """Whether `name` is a folder directly in `src`. A path to another place is not accepted."""
    return Path(name).name == name and name not in ("", "..") and (src / name).is_dir()


def _has_scheduler(src: Path) -> bool:
    return any((src / place / SCHEDULER_CONFIG).is_file() for place in ("", "scheduler"))


def _class_name(config: Path) -> str | None:
    name = read_config(config).get("_class_name")
    return name if isinstance(name, str) else None


def read_config(path: Path) -> dict[str, Any]:
    """The JSON object in a file. ValueError if it holds something else."""
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError):
        raise ValueError(f"{path} is not JSON") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path} is not a JSON object")
    return cast(dict[str, Any], found)
