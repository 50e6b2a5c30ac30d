"""Learned tables that lie beside a model, in its folder `tables`."""

import os
import re
from pathlib import Path

from ddpm_jax.hub import hub
from ddpm_jax.tables.files import load_table
from ddpm_jax.tables.table import Table

FOLDER = "tables"
NAME = re.compile(r"learned-(\d+)\.json")


def learned_table(name: str | os.PathLike[str], evaluations: int) -> Table:
    """The learned table of a model with a number of evaluations.

    Args:
        name: a bundled name, or a local folder with `tables/learned-8.json`.
        evaluations: of the network, in a run.

    Raises:
        ValueError: the model has no learned table, or none with this number; the message lists
            those that it has.

    >>> import pathlib, tempfile, ddpm_jax as dj
    >>> model = pathlib.Path(tempfile.mkdtemp())
    >>> (model / "tables").mkdir()
    >>> dj.save_table(model / "tables" / "learned-8.json", dj.DDIMScheduler().table(8))
    >>> len(dj.learned_table(model, 8))
    8
    """
    return load_table(learned_file(name, evaluations))


def learned_file(name: str | os.PathLike[str], evaluations: int) -> Path:
    """The file of `learned_table`, with its errors."""
    folder = _folder(name)
    if (file := folder / f"learned-{evaluations}.json").is_file():
        return file
    matches = (NAME.fullmatch(file.name) for file in folder.glob("*.json"))
    found = sorted(int(match[1]) for match in matches if match)
    if not found:
        raise ValueError(f"{name} has no learned tables: learn_table makes one")
    raise ValueError(
        f"{name} has learned tables of {', '.join(map(str, found))} evaluations, got {evaluations}"
    )


def _folder(name: str | os.PathLike[str]) -> Path:
    bundled = hub.BUNDLED / name if isinstance(name, str) and name in hub.bundled_names() else None
    return (bundled or Path(name)) / FOLDER
