"""JSON files, sums of files, the cache folder, and `replacing`, which writes a file or folder
completely or not at all.

`replacing(path)` returns a path to write to. It replaces `path` at the end of the block, so a
reader sees the old or the new content, never a part.
"""

import hashlib
import os
from pathlib import Path

from weights_convert.errors import faults_of as faults_of
from weights_convert.errors import first_line as first_line
from weights_convert.errors import listed as listed
from weights_convert.json_files import read_json as read_json
from weights_convert.json_files import write_json as write_json
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
