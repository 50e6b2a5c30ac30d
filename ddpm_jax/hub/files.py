"""JSON files, sums of files, the cache folder, and `replacing`, which writes a file or folder
completely or not at all.

`replacing(path)` returns a path to write to. It replaces `path` at the end of the block, so a
reader sees the old or the new content, never a part.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from weights_convert.errors import faults_of as faults_of
from weights_convert.errors import first_line as first_line
from weights_convert.errors import listed as listed
from weights_convert.write import replacing as replacing


def cache_folder() -> Path:
    """The library's folder in the user's cache, `$XDG_CACHE_HOME/ddpm_jax`, by default under
    `~/.cache`; it need not exist.
    """
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "ddpm_jax"


def file_sum(file: Path) -> str:
    """The SHA-256 sum of a file, as hexadecimal digits."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        ValueError: the file is missing, cannot be read, or does not hold a JSON object.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as JSON: {error}") from error
    except RecursionError:
        raise ValueError(f"{path} cannot be read as JSON: it is nested too deeply") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a JSON object, got {type(content).__name__}")
    return content


def write_json(path: str | os.PathLike[str], content: Mapping[str, Any]) -> None:
    """Writes a JSON object with sorted keys, by `replacing`."""
    text = json.dumps(dict(content), indent=2, sort_keys=True) + "\n"
    with replacing(Path(path)) as partial:
        partial.write_text(text, encoding="utf-8")
