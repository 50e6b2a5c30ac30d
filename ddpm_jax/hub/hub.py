"""From a model's name to a local folder.

A name is a local folder, a bundled name ("digits", "emoji"), or a hub id ("owner/name"), tried in
the order: bundled, folder, hub. A local folder named like a bundled model is reached as "./digits"
or as a `Path`, which is always a folder. Folders never touch the network. Out of a hub repository
only the files that are needed are fetched.

A component (the network or the scheduler) is found in each of these layouts:

    pipeline folder     model_index.json, unet/config.json, unet/<weights>,
                        scheduler/scheduler_config.json
    one subfolder       unet/config.json, unet/<weights>; or scheduler/scheduler_config.json
    its own folder      config.json, <weights>; or scheduler_config.json
    flat repository     model_index.json, config.json, <weights>, scheduler_config.json
"""

import os
import re
import warnings
from collections.abc import Collection, Iterable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Literal

from ddpm_jax.hub import download
from weights_convert import weight_files

Kind = Literal["unet", "scheduler"]
Name = str | os.PathLike[str]

CONFIG: dict[str, str] = {"unet": "config.json", "scheduler": "scheduler_config.json"}
"""The config file of each kind of component."""

MODEL_INDEX = "model_index.json"
CLASS_NAMES = "id2label.json"
BUNDLED = Path(__file__).parents[1] / "bundled"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
VARIANT = re.compile(
    r"diffusion_pytorch_model(?:\.(?:safetensors|bin)\.index)?"
    r"\.(\w+)(?:-\d{5}-of-\d{5})?\.(?:safetensors|bin|json)"
)
"""Names of weights of a variant, and of the index of their shards."""

NOTES = {
    "google/ddpm-cifar10-32": "google/ddpm-cifar10-32 holds the weights of the last training step, "
    "not their moving average (EMA): its samples score worse than the paper's"
}


def component(
    name: Name,
    kind: Kind,
    *,
    subfolder: str | None = None,
    revision: str | None = None,
    variant: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    weights: bool = True,
) -> Path:
    """The local folder that holds the config of one component.

    `subfolder`: look there and nowhere else. `variant`: which weights to fetch ("fp16").
    `weights=False`: fetch the config alone. `revision` is a branch, tag or commit of a hub
    repository.

    Raises ValueError: the name is none of the three kinds, the folder lacks the config, or a
    revision of a local folder is asked for; `download.HubError` (an OSError): the hub has it not,
    or not for us.
    """
    choose = partial(
        _component_files, kind=kind, subfolder=subfolder, variant=variant, weights=weights
    )
    root = _root(name, choose, revision, cache_dir, token, local_files_only)
    if kind == "unet" and weights:
        _note(str(name))
    for prefix in _prefixes(kind, subfolder):
        if (root / prefix / CONFIG[kind]).is_file():
            return root / prefix
    raise ValueError(
        _missing(str(root), [p + CONFIG[kind] for p in _prefixes(kind, subfolder)], _listing(root))
    )


def pipeline(
    name: Name,
    *,
    components: Collection[Kind] = ("unet", "scheduler"),
    revision: str | None = None,
    variant: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
) -> Path:
    """The local folder that holds `model_index.json` and the components asked for.

    Arguments and errors as in `component`. Whether the components are complete is found out by
    whoever reads them.
    """
    choose = partial(_pipeline_files, components=components, variant=variant)
    root = _root(name, choose, revision, cache_dir, token, local_files_only)
    if not (root / MODEL_INDEX).is_file():
        raise ValueError(_missing(str(root), [MODEL_INDEX], _listing(root)))
    _note(str(name))
    return root


def other_variants(names: Iterable[str]) -> str:
    """The end of a sentence about missing weights: which variants are among these file names."""
    found = sorted({match[1] for name in names if (match := VARIANT.fullmatch(name))})
    if not found:
        return ""
    these = f"variant {found[0]}" if len(found) == 1 else f"variants {', '.join(found)}"
    return f"; found {these}: pass variant={found[0]!r}"


def bundled_names() -> list[str]:
    """The models that come with the package."""
    return sorted(folder.name for folder in BUNDLED.iterdir() if (folder / MODEL_INDEX).is_file())


@cache
def _note(name: str) -> None:
    """Says once in a process what there is to know about a repository."""
    if name in NOTES:
        warnings.warn(NOTES[name], stacklevel=4)


def _root(
    name: Name,
    choose: download.Choose,
    revision: str | None,
    cache_dir: str | os.PathLike[str] | None,
    token: str | bool | None,
    local_files_only: bool,
) -> Path:
    local = _local(name)
    if local is not None:
        if revision is not None:
            raise ValueError(
                f"revision={revision!r} is for hub repositories; {str(name)!r} is a local folder"
            )
        return local
    return download.fetch(
        str(name),
        choose,
        revision=revision,
        cache_dir=cache_dir,
        token=token,
        local_files_only=local_files_only,
    )


def _local(name: Name) -> Path | None:
    """The folder that a name stands for; None where it is a hub id."""
    names = bundled_names()
    if name in names:
        return BUNDLED / str(name)
    folder = Path(name).expanduser()
    if folder.is_dir() and name != "":
        return folder
    if isinstance(name, str) and HUB_ID.fullmatch(name) and not folder.exists():
        return None
    what = "is a file, not a folder" if folder.is_file() else "is not a folder here"
    raise ValueError(
        f"{str(name)!r} {what}: give a local folder, a hub id such as 'google/ddpm-cat-256', "
        f"or a bundled name ({', '.join(names)})"
    )


def _component_files(
    names: Sequence[str], *, kind: Kind, subfolder: str | None, variant: str | None, weights: bool
) -> list[str]:
    """Which of a repository's files make up one component: its config first, then its weights."""
    prefixes = _prefixes(kind, subfolder)
    found = [prefix for prefix in prefixes if prefix + CONFIG[kind] in names]
    if not found:
        raise ValueError(
            _missing("the repository", [prefix + CONFIG[kind] for prefix in prefixes], names)
        )
    prefix = found[0]
    files = [prefix + CONFIG[kind]]
    if kind == "unet" and subfolder is None and CLASS_NAMES in names:
        files.append(CLASS_NAMES)
    if kind == "unet" and weights:
        inside = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
        try:
            files += [prefix + file for file in weight_files(inside, variant)]
        except FileNotFoundError as error:
            raise ValueError(f"{error}{other_variants(inside)}") from None
    return files


def _pipeline_files(
    names: Sequence[str], *, components: Collection[Kind], variant: str | None
) -> list[str]:
    if MODEL_INDEX not in names:
        raise ValueError(_missing("the repository", [MODEL_INDEX], names))
    files = [MODEL_INDEX]
    for kind in components:
        files += _component_files(names, kind=kind, subfolder=None, variant=variant, weights=True)
    return files


def _prefixes(kind: Kind, subfolder: str | None) -> list[str]:
    """Where in a folder a component may lie, as path prefixes, in the order of looking."""
    if subfolder is None:
        return [f"{kind}/", ""]
    return [f"{subfolder.strip('/')}/"]


def _listing(folder: Path) -> list[str]:
    return sorted(entry.name + "/" * entry.is_dir() for entry in folder.iterdir())


def _missing(where: str, looked_for: Sequence[str], there: Sequence[str]) -> str:
    shown = ", ".join(sorted(there)[:12]) + (", ..." if len(there) > 12 else "")
    return f"{where} has no {' or '.join(looked_for)}; it holds: {shown or 'nothing'}"
