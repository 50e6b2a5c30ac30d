"""The results file: written after every configuration, so that a run can be taken up again."""

import json
import os
from pathlib import Path
from typing import Any

from benchmarks.models import Configuration

Document = dict[str, Any]


def opened(path: Path, machine: dict[str, Any], fresh: bool = False) -> Document:
    """The results in a file, or an empty document where there is none or `fresh` is asked for.

    Raises:
        ValueError: the file is no results file, or its results are of another machine.
    """
    empty = {"machine": machine, "configurations": []}
    if fresh or not path.exists():
        return empty
    try:
        document = json.loads(path.read_text())
        theirs, _ = document["machine"], document["configurations"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a results file: {error!r}") from None
    changed = [name for name in machine if theirs.get(name) != machine[name]]
    if changed:
        told = "; ".join(f"{name}: {theirs.get(name)}, now {machine[name]}" for name in changed)
        raise ValueError(
            f"{path} has results of another machine or other versions ({told}): choose another "
            "--out, or --fresh to begin anew"
        )
    return document


def find(
    document: Document, configuration: Configuration, digest: str, options: dict[str, Any]
) -> dict[str, Any] | None:
    """The configuration's result, if it was taken with the same code and options."""
    for result in document["configurations"]:
        if (
            _is_of(result, configuration)
            and result["code"]["digest"] == digest
            and result["options"] == options
        ):
            return result
    return None


def add(document: Document, configuration: Configuration, result: dict[str, Any]) -> Document:
    """The document with the configuration's result in its place, or at the end."""
    kept = document["configurations"]
    places = [i for i, other in enumerate(kept) if _is_of(other, configuration)]
    if not places:
        return {**document, "configurations": [*kept, result]}
    i = places[0]
    return {**document, "configurations": [*kept[:i], result, *kept[i + 1 :]]}


def write(path: Path, text: str) -> None:
    """Replaces a file at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(text)
    beside.replace(path)


def _is_of(result: dict[str, Any], configuration: Configuration) -> bool:
    return all(result[name] == value for name, value in configuration.as_dict().items())
