"""A table as a file: JSON that a person can read, exact at the table's dtype.

    {"format": "ddpm_jax.Table 1", "description": ..., "dtype": "float32", "init_scale": 1.0,
     "refine": {"type": "Clip", "limit": 1.0},
     "rows": [{"timestep": 999.0, "level": [alpha, sigma], "in_scale": ..., "to_x0": [...],
               "noise_scale": ..., "log_var": [...], "mix": [[...], ...]}, ...]}

`refine` may be null; `noise_scale` and `log_var` are there if the table has the column. A table
that was made for one scale of classifier-free guidance may have it as `guidance_scale`. One row is
one line, so two tables compare well line by line.
"""

# pyright: reportUnknownMemberType=false, reportUnnecessaryIsInstance=false
# jax leaves parts of its types open, and users are not type-checked.

import json
import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np

from ddpm_jax.hub.files import faults_of, listed, read_json, replacing
from ddpm_jax.tables.refine import Clip, DynamicThreshold, Refine
from ddpm_jax.tables.table import Table

FORMAT = "ddpm_jax.Table 1"
REFINEMENTS: Mapping[str, type[Refine]] = {cls.__name__: cls for cls in (Clip, DynamicThreshold)}
COLUMNS = ("timestep", "level", "in_scale", "to_x0", "noise_scale", "log_var", "mix")
OPTIONAL = ("noise_scale", "log_var")
SHAPES: Mapping[str, tuple[int, ...]] = {"level": (2,), "to_x0": (2,), "log_var": (2,)}
"""Of a row's entry; () of the others but `mix`."""
HEADER = ("format", "description", "guidance_scale", "dtype", "init_scale", "refine", "rows")


def save_table(
    path: str | os.PathLike[str],
    table: Table,
    *,
    description: str = "",
    guidance_scale: float | None = None,
) -> None:
    """Writes a table as JSON. `load_table` gives the same numbers back, bit for bit.

    Args:
        path: the file; it is written whole or not at all.
        table: float32 or float64, on the host or a device.
        description: a line for people: what the table is for, and where it comes from.
        guidance_scale: the scale of classifier-free guidance that the table is for, if it is for
            one; `ddpm-jax sample` takes it by default.

    Raises:
        ValueError: a stack of tables, or numbers that are not finite.

    >>> import pathlib, tempfile, ddpm_jax as dj
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "ddim.json"
    >>> dj.save_table(file, dj.DDIMScheduler().table(8), description="DDIM, 8 steps")
    """
    host = jax.tree.map(np.asarray, table)
    if host.timestep.ndim != 1:
        raise ValueError("this is a stack of tables: save each alone")
    if not all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(host)):
        raise ValueError("a table with numbers that are not finite cannot be saved")
    scale = _guidance({"guidance_scale": guidance_scale})
    present = [name for name in COLUMNS if getattr(host, name) is not None]
    refine = host.refine
    header = {
        "format": FORMAT,
        "description": description,
        **({} if scale is None else {"guidance_scale": scale}),
        "dtype": str(host.mix.dtype),
        "init_scale": _shortest(host.init_scale),
        "refine": None if refine is None else {"type": type(refine).__name__, **_numbers(refine)},
    }
    rows = [
        json.dumps({name: _shortest(getattr(host, name)[i]) for name in present})
        for i in range(len(host))
    ]
    text = (
        json.dumps(header, indent=1)[:-2] + ',\n "rows": [\n  ' + ",\n  ".join(rows) + "\n ]\n}\n"
    )
    with replacing(Path(path)) as partial:
        partial.write_text(text, encoding="utf-8")


def load_table(path: str | os.PathLike[str]) -> Table:
    """Reads a table that `save_table` wrote, or that a person wrote in its form.

    Raises:
        ValueError: no such file, not a table's JSON, or rows that do not fit each other.

    >>> import pathlib, tempfile, ddpm_jax as dj
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "ddim.json"
    >>> dj.save_table(file, dj.DDIMScheduler().table(8))
    >>> len(dj.load_table(file))
    8
    """
    content = read_json(path)
    with faults_of(path):
        return _table(content)


def guidance_of(path: str | os.PathLike[str]) -> float | None:
    """The scale of guidance that the table in a file is for, if it is for one.

    Raises:
        ValueError: no such file, or a scale that is no number.
    """
    content = read_json(path)
    with faults_of(path):
        return _guidance(content)


def _guidance(content: Mapping[str, Any]) -> float | None:
    found = content.get("guidance_scale")
    return None if found is None else float(_array("guidance_scale", found, (), "float64"))


def _table(content: Mapping[str, Any]) -> Table:
    if content.get("format") != FORMAT:
        raise ValueError(f'"format" must be "{FORMAT}", got {content.get("format")!r}')
    _check_names("a table", content, HEADER, ("description", "guidance_scale"))
    _guidance(content)
    dtype = content["dtype"]
    if dtype not in ("float32", "float64"):
        raise ValueError(f'"dtype" must be "float32" or "float64", got {dtype!r}')
    rows = cast(list[dict[str, Any]], content["rows"])
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise ValueError('"rows" must be a list of one or more objects')
    for i, row in enumerate(rows):
        _check_names(f"row {i}", row, COLUMNS, OPTIONAL)
        if row.keys() != rows[0].keys():
            raise ValueError(f"row {i} has other entries than row 0")
    refine = _refine(content["refine"], dtype)
    columns = {name: _column(rows, name, dtype) for name in COLUMNS if name in rows[0]}
    registers, sources = columns["mix"].shape[1:]
    if registers < 1 or sources != registers + 1 + (refine is not None):
        raise ValueError(
            f'"mix" must have m rows of m + {1 + (refine is not None)} numbers, '
            f"got {registers} rows of {sources}"
        )
    init_scale = _array("init_scale", content["init_scale"], (), dtype)
    if init_scale < 0:
        raise ValueError(f'"init_scale" must be at least 0, got {init_scale}')
    return Table(**columns, init_scale=init_scale, refine=refine)


def _column(rows: list[dict[str, Any]], name: str, dtype: str) -> np.ndarray:
    """One column; the timestep is float32 in every table."""
    kind = "float32" if name == "timestep" else dtype
    shape = SHAPES.get(name, ())
    if name == "mix":
        shape = _array("mix of row 0", rows[0]["mix"], None, kind).shape
        if len(shape) != 2:
            raise ValueError('"mix" must be a list of lists of numbers')
    return np.stack(
        [_array(f"{name} of row {i}", row[name], shape, kind) for i, row in enumerate(rows)]
    )


def _array(what: str, given: Any, shape: tuple[int, ...] | None, dtype: str) -> np.ndarray:
    try:
        array = np.asarray(given)
    except ValueError:  # lists of several lengths
        array = np.asarray(None)
    wrong_shape = shape is not None and array.shape != shape
    if array.dtype.kind not in "iuf" or wrong_shape or not np.all(np.isfinite(array)):
        wanted = "" if shape is None else f" of shape {shape}"
        raise ValueError(f"{what} must be finite numbers{wanted}, got {given!r:.80}")
    return array.astype(dtype)


def _refine(given: Any, dtype: str) -> Refine | None:
    if given is None:
        return None
    entries = cast(dict[str, Any], given) if isinstance(given, dict) else {}
    cls = REFINEMENTS.get(str(entries.get("type")))
    if cls is None:
        raise ValueError(f'"refine" must be null or of type {", ".join(REFINEMENTS)}, got {given}')
    names = [field.name for field in fields(cls)]
    _check_names("refine", entries, ("type", *names), ())
    return cls(**{name: _array(name, entries[name], (), dtype) for name in names})


def _check_names(
    what: str, given: Mapping[str, Any], names: tuple[str, ...], optional: tuple[str, ...]
) -> None:
    missing = [name for name in names if name not in given and name not in optional]
    unknown = [name for name in given if name not in names]
    wrong = {"lacks": missing, "has": unknown}
    parts = [f"{verb} {listed(found)}" for verb, found in wrong.items() if found]
    if parts:
        raise ValueError(f"{what} {' and '.join(parts)}; its entries are {', '.join(names)}")


def _numbers(refine: Refine) -> dict[str, Any]:
    return {field.name: _shortest(getattr(refine, field.name)) for field in fields(refine)}


def _shortest(array: Any) -> Any:
    """Nested lists of the shortest decimals that give each number back at its dtype."""
    host = np.asarray(array)
    return [_shortest(part) for part in host] if host.ndim else float(str(host[()]))
