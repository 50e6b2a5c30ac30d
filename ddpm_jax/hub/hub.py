"""From a model's name to a local folder.

A name is a bundled name ("digits", "avatars"), a local folder, or a hub id ("owner/name"), tried in
this order. To load a local folder with a bundled model's name, write "./digits" or pass a `Path`,
which is always a folder. A local folder needs no network. From a hub repository only the needed
files are fetched.

A component is found in each of these layouts, here for a network and a scheduler:

    pipeline folder     model_index.json, unet/config.json, unet/<weights>,
                        scheduler/scheduler_config.json
    one subfolder       unet/config.json, unet/<weights>; or scheduler/scheduler_config.json
    its own folder      config.json, <weights>; or scheduler_config.json
    flat repository     model_index.json, config.json, <weights>, scheduler_config.json
"""

import os
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TypedDict, Unpack

from ddpm_jax.hub import download
from ddpm_jax.hub.component import MODEL_INDEX, ComponentFiles
from ddpm_jax.hub.files import listed
from weights_convert import weight_files
from weights_convert.files import chosen, fallbacks

Name = str | os.PathLike[str]


class HubOptions(TypedDict, total=False):
    """Options of all functions that take a model's name. A local folder needs none of them."""

    revision: str | None
    """Branch, tag or commit of a hub repository."""
    variant: str | None
    """Which weights: "fp16" for `diffusion_pytorch_model.fp16.safetensors`. Of a pipeline, a
    component without it is read as it is; one must have it."""
    cache_dir: str | os.PathLike[str] | None
    """The folder of cached downloads; the default is huggingface_hub's cache."""
    token: str | bool | None
    """A hub token, for private and gated repositories."""
    local_files_only: bool
    """Use only cached files and no network."""


BUNDLED = Path(__file__).parents[1] / "bundled"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
VARIANT = re.compile(
    r"\w+(?:\.(?:safetensors|bin)\.index)?"
    r"\.(\w+)(?:-\d{5}-of-\d{5})?\.(?:safetensors|bin|json)"
)
"""Matches weight files of a variant, and the index of their shards."""

NOTES = {
    "google/ddpm-cifar10-32": "google/ddpm-cifar10-32 has the weights of the last training step, "
    "not their moving average (EMA): its samples score worse than the paper's"
}


def component(
    name: Name,
    files: ComponentFiles,
    *,
    subfolder: str | None = None,
    weights: bool = True,
    **options: Unpack[HubOptions],
) -> Path:
    """The local folder with the config of one component.

    Args:
        name: a local folder, a bundled name or a hub id.
        files: the names of the component's files.
        subfolder: look only there.
        weights: False fetches only the config.
        **options: see `HubOptions`.

    Raises:
        TypeError: an option is not one of `HubOptions`.
        ValueError: the name is none of the three kinds, the folder lacks the config, or `revision`
            is given for a local folder.
        download.HubError: (an OSError) not on the hub, or access is denied.
    """
    root = _root(
        name,
        partial(
            _component_files,
            files=files,
            subfolder=subfolder,
            variant=options.get("variant"),
            weights=weights,
        ),
        options,
    )
    if files.weights and weights:
        _note(str(name))
    for prefix in files.prefixes(subfolder):
        if any((root / name).is_file() for name in files.own(prefix)):
            return root / prefix
    raise ValueError(_missing(str(root), files.configs(subfolder), _listing(root)))


def pipeline(
    name: Name, components: Iterable[ComponentFiles], **options: Unpack[HubOptions]
) -> Path:
    """The local folder with `model_index.json` and these components.

    Arguments and errors as in `component`. A component without the variant is fetched as it is; one
    must have it. In a local folder the components are not checked here.
    """
    choose = partial(_pipeline_files, components=tuple(components), variant=options.get("variant"))
    root = _root(name, choose, options)
    if not (root / MODEL_INDEX).is_file():
        raise ValueError(_missing(str(root), [MODEL_INDEX], _listing(root)))
    _note(str(name))
    return root


def variants(
    entries: Mapping[ComponentFiles, Iterable[str]], variant: str | None
) -> dict[ComponentFiles, str | None]:
    """The variant to read of each component: None for those without it, if others have it.

    `entries` are the names in each component's folder.
    """
    present = {
        files: files.weights is not None and chosen(names, variant, files.weights) is not None
        for files, names in entries.items()
    }
    return fallbacks(present, variant)


def root_of(folder: Path, files: ComponentFiles) -> Path:
    """The folder of the pipeline that a component's folder may belong to."""
    return folder.parent if folder.name == files.folder else folder


def other_variants(names: Iterable[str]) -> str:
    """The end of an error message about missing weights: the variants among these file names."""
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
    """Shows the note about a repository as a warning, once in a process."""
    if name in NOTES:
        warnings.warn(NOTES[name], stacklevel=4)


def _root(name: Name, choose: download.Choose, options: HubOptions) -> Path:
    unknown = sorted(set(options) - HubOptions.__annotations__.keys())
    if unknown:
        accepted = ", ".join(HubOptions.__annotations__)
        raise TypeError(f"unknown options {', '.join(unknown)}; accepted: {accepted}")
    local = _local(name)
    if local is None:
        fetching = {key: value for key, value in options.items() if key != "variant"}
        return download.fetch(str(name), choose, **fetching)  # pyright: ignore[reportArgumentType]
    if (revision := options.get("revision")) is not None:
        raise ValueError(
            f"revision={revision!r} is for hub repositories; {str(name)!r} is a local folder"
        )
    return local


def _local(name: Name) -> Path | None:
    """The local folder of a name; None for a hub id."""
    names = bundled_names()
    folder = Path(name).expanduser()
    if name in names:
        if folder.is_dir():
            warnings.warn(
                f"{name!r} is the bundled model, not the folder of that name: write './{name}' for "
                "the folder",
                stacklevel=5,
            )
        return BUNDLED / str(name)
    if folder.is_dir() and name != "":
        return _snapshot(folder)
    if isinstance(name, str) and HUB_ID.fullmatch(name) and not folder.exists():
        return None
    what = "is a file, not a folder" if folder.is_file() else "is not a local folder"
    raise ValueError(
        f"{str(name)!r} {what}: give a local folder, a hub id such as 'google/ddpm-cat-256', "
        f"or a bundled name ({', '.join(names)})"
    )


def _snapshot(folder: Path) -> Path:
    """The files of a repository's folder in huggingface_hub's cache; any other folder as it is."""
    main = folder / "refs" / "main"
    if folder.name.startswith("models--") and main.is_file():
        return folder / "snapshots" / main.read_text().strip()
    return folder


def _component_files(
    names: Sequence[str],
    *,
    files: ComponentFiles,
    subfolder: str | None,
    variant: str | None,
    weights: bool,
) -> list[str]:
    """The files of one component in a repository: its config first, then its weights."""
    prefix = _prefix(names, files, subfolder)
    needed = [name for name in files.own(prefix) if name in names]
    if subfolder is None:
        needed += [name for name in files.companions if name in names]
    if files.weights and weights:
        inside = _below(prefix, names)
        try:
            needed += [prefix + file for file in weight_files(inside, variant, files.weights)]
        except FileNotFoundError as error:
            raise ValueError(f"{error}{other_variants(inside)}") from None
    return needed


def _prefix(names: Sequence[str], files: ComponentFiles, subfolder: str | None) -> str:
    """Where a component is in a repository."""
    for prefix in files.prefixes(subfolder):
        if any(name in names for name in files.own(prefix)):
            return prefix
    raise ValueError(_missing("the repository", files.configs(subfolder), names))


def _below(prefix: str, names: Sequence[str]) -> list[str]:
    return [name.removeprefix(prefix) for name in names if name.startswith(prefix)]


def _pipeline_files(
    names: Sequence[str], *, components: Iterable[ComponentFiles], variant: str | None
) -> list[str]:
    if MODEL_INDEX not in names:
        raise ValueError(_missing("the repository", [MODEL_INDEX], names))
    needed = [MODEL_INDEX]
    entries = {
        files: {name.partition("/")[0] for name in _below(_prefix(names, files, None), names)}
        for files in components
    }
    for files, one in variants(entries, variant).items():
        needed += _component_files(names, files=files, subfolder=None, variant=one, weights=True)
    return needed


def _listing(folder: Path) -> list[str]:
    return sorted(entry.name + "/" * entry.is_dir() for entry in folder.iterdir())


def _missing(where: str, looked_for: Sequence[str], present: Sequence[str]) -> str:
    shown = listed(sorted(present)) or "nothing"
    return f"{where} has no {' or '.join(looked_for)}; it contains: {shown}"
