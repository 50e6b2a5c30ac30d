"""The layout of SRC: a weight file, a component's folder, or a pipeline's folder, nested or flat;
and the files to copy with the weights.

    at SRC                                                            at DST
    component   config.json, <weights>                                the same
    nested      model_index.json, unet/, scheduler/, others           the same
    flat        model_index.json, config.json, <weights>,             as nested
                scheduler_config.json
    file        <weights>, and config.json if it is in that folder    as a component

Every component of a pipeline that has a config.json and weights is a network, and is converted; the
folders of others are copied. `id2label.json`, the names of a pipeline's classes, is copied too.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from weights_convert.errors import listed
from weights_convert.files import (
    DIFFUSERS,
    FLAX_FILE,
    ORBAX_FOLDER,
    TRANSFORMERS,
    Stem,
    chosen,
    fallbacks,
    find_weights,
    open_weights,
)
from weights_convert.json_files import read_json
from weights_convert.names import OLD_CLASSES, current_config
from weights_convert.orbax_io import is_orbax
from weights_convert.tensors import Checkpoint

NETWORK, NETWORK_CLASS = "unet", "UNet2DModel"
"""The component that every pipeline has, and its class if its config names none."""

CONFIG = "config.json"
AVERAGED = "_moving_average"
"""The field of a config that says whether its weights are a moving average (EMA)."""
AVERAGE_NOTE = "the file has a moving average (EMA) of these weights too: ema takes it"
LAYOUT = "0.35.0"
"""The version of diffusers whose layout is written; its own loading of a pipeline reads it."""
INDEX = "model_index.json"
SCHEDULER_CONFIG = "scheduler_config.json"
CLASS_NAMES = "id2label.json"

_STEMS = (DIFFUSERS, TRANSFORMERS)

# The pipeline of a scheduler's class, where no model_index.json names one.
_PIPELINES = {
    "CMStochasticIterativeScheduler": "ConsistencyModelPipeline",
    "DDIMScheduler": "DDIMPipeline",
    "PNDMScheduler": "PNDMPipeline",
    "ScoreSdeVeScheduler": "ScoreSdeVePipeline",
}


def averaged(is_average: bool | None) -> dict[str, Any]:
    """The field of a config that says whether its weights are an average, where that is known."""
    return {} if is_average is None else {AVERAGED: is_average}


@dataclass(frozen=True, kw_only=True)
class Network:
    """The weights of one component, and where they go."""

    weights: Path
    """The file, index of shards or orbax folder that is read."""
    open: Callable[[], Checkpoint]
    config: dict[str, Any]
    """Empty if there is none."""
    subfolder: str = ""
    """In the output."""

    @property
    def stem(self) -> Stem:
        """The name that the library of its class gives to weights."""
        return _stem(self.config)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What is converted, what is copied with it, and what is made."""

    networks: tuple[Network, ...]
    # path in the output -> file or folder
    copies: dict[str, Path] = field(default_factory=dict[str, Path])
    # path in the output -> the content of a JSON file
    made: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    notes: tuple[str, ...] = ()
    """What the result lacks, as sentences."""


def locate(src: Path, variant: str | None, ema: bool = False) -> Layout:
    """Find the weights at `src` and the files to copy with them.

    Of a pipeline, a component without this variant is read as it is; one must have it. `ema` takes
    the moving average, where a file has it beside other weights.

    Raises:
        FileNotFoundError: `src` does not exist, or has no weights.
        ValueError: a folder has no config.json, a JSON file is damaged, or model_index.json names
            components that do not exist.
    """
    if not src.exists():
        raise FileNotFoundError(f"{src} does not exist")
    if src.is_file() or is_orbax(src):
        return _lone_weights(src, ema)
    if ema:
        raise ValueError(f"{src} is a folder: a moving average (EMA) is taken from a file of it")
    if (src / NETWORK).is_dir():
        return _pipeline(src, src / NETWORK, src / "scheduler" / SCHEDULER_CONFIG, variant)
    if (src / INDEX).is_file() or (src / SCHEDULER_CONFIG).is_file():
        return _pipeline(src, src, src / SCHEDULER_CONFIG, variant)
    network = _network(src, variant)
    return Layout(networks=(network,), copies={CONFIG: src / CONFIG})


def component_of(src: Path, name: str) -> Path:
    """The folder of one component in a pipeline's folder."""
    if not _is_component(src, name):
        raise ValueError(f"{src} has no component {name!r}")
    return src / name


def _lone_weights(src: Path, ema: bool) -> Layout:
    with open_weights(src, ema=ema) as weights:  # names and shapes only
        is_average = weights.is_average
    path = src.parent / CONFIG
    config, made, notes = dict[str, Any](), dict[str, dict[str, Any]](), list[str]()
    if path.is_file():
        config = read_json(path)
        made[CONFIG] = current_config(config) | averaged(is_average)
    else:
        notes.append(f"no {CONFIG}: add one to this folder to load it")
    if is_average is False:
        notes.append(AVERAGE_NOTE)
    network = Network(weights=src, open=partial(open_weights, src, ema=ema), config=config)
    return Layout(networks=(network,), made=made, notes=tuple(notes))


def unconditional_index(scheduler: str) -> dict[str, Any]:
    """The index of a pipeline with a `UNet2DModel` and a scheduler of this class."""
    return {
        "_class_name": _pipeline_of(scheduler),
        "_diffusers_version": LAYOUT,
        NETWORK: ["diffusers", NETWORK_CLASS],
        "scheduler": ["diffusers", scheduler],
    }


def _pipeline_of(scheduler: str) -> str:
    return _PIPELINES.get(scheduler, "DDPMPipeline")


def _network(folder: Path, variant: str | None, subfolder: str = "") -> Network:
    """The network in a component's folder. Raises as `locate`."""
    config = read_json(_config(folder))
    weights = _weights(folder, variant, _stem(config))
    return Network(
        weights=weights, open=partial(open_weights, weights), config=config, subfolder=subfolder
    )


def _stem(config: dict[str, Any]) -> Stem:
    of_transformers = "_class_name" not in config and "architectures" in config
    return TRANSFORMERS if of_transformers else DIFFUSERS


def _weights(folder: Path, variant: str | None, stem: Stem) -> Path:
    """The weights in a folder, by the names of their library, else by those of the other."""
    names = [entry.name for entry in folder.iterdir()]
    found = [one for one in (stem, *_STEMS) if chosen(names, variant, one)]
    return find_weights(folder, variant, found[0] if found else stem)


def _pipeline(src: Path, network: Path, scheduler: Path, variant: str | None) -> Layout:
    copies: dict[str, Path] = {}
    if scheduler.is_file():
        copies[f"scheduler/{SCHEDULER_CONFIG}"] = scheduler
    if (src / CLASS_NAMES).is_file():
        copies[CLASS_NAMES] = src / CLASS_NAMES
    _config(network)
    index = _index(src, network / CONFIG, scheduler)
    others = {} if index is None else _other_components(src, index)
    networks = {NETWORK: network} | {n: path for n, path in others.items() if _has_weights(path)}
    copies |= {name: path for name, path in others.items() if name not in networks}
    copies |= {f"{name}/{CONFIG}": path / CONFIG for name, path in networks.items()}
    present = {name: _has_variant(path, variant) for name, path in networks.items()}
    return Layout(
        networks=tuple(
            _network(networks[name], one, name) for name, one in fallbacks(present, variant).items()
        ),
        copies=copies,
        made={} if index is None else {INDEX: index},
    )


def _has_weights(folder: Path) -> bool:
    """Whether a component is a network: it has a config, and weights of any variant."""
    stems = {name for stem in _STEMS for name in stem}
    named = re.compile(
        rf"(?:{'|'.join(sorted(stems))})[\w.-]*\.(?:safetensors|bin)"
        rf"|{re.escape(FLAX_FILE)}|{re.escape(ORBAX_FOLDER)}"
    )
    names = [entry.name for entry in folder.iterdir()]
    return CONFIG in names and any(named.fullmatch(name) for name in names)


def _has_variant(folder: Path, variant: str | None) -> bool:
    names = {entry.name for entry in folder.iterdir()}
    return any(chosen(names, variant, stem) for stem in _STEMS)


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
    index = read_json(src / INDEX) if has_index else {}
    if has_scheduler:
        method = _class_name(scheduler) or "DDPMScheduler"
        index["scheduler"] = ["diffusers", method]
        index.setdefault("_class_name", _pipeline_of(method))
    found = _class_name(network) or NETWORK_CLASS
    index[NETWORK] = ["diffusers", OLD_CLASSES.get(found, found)]
    pipeline = index.get("_class_name")
    if isinstance(pipeline, str):
        index["_class_name"] = OLD_CLASSES.get(pipeline, pipeline)
    return index


def _other_components(src: Path, index: dict[str, Any]) -> dict[str, Path]:
    """The folders of the index's other components."""
    needed = [
        name
        for name, entry in index.items()
        if name != NETWORK and isinstance(entry, list) and entry and entry[0] is not None
    ]
    found = {name: src / name for name in needed if _is_component(src, name)}
    flat = {"scheduler"} if (src / SCHEDULER_CONFIG).is_file() else set[str]()
    missing = [name for name in needed if name not in found.keys() | flat]
    if missing:
        raise ValueError(f"{src / INDEX} names components that do not exist: {listed(missing)}")
    return {name: folder for name, folder in found.items() if name != "scheduler"}


def _is_component(src: Path, name: str) -> bool:
    """Whether `name` is a folder directly in `src`. A path to another place is not accepted."""
    return Path(name).name == name and name not in ("", "..") and (src / name).is_dir()


def _class_name(config: Path) -> str | None:
    name = read_json(config).get("_class_name")
    return name if isinstance(name, str) else None
