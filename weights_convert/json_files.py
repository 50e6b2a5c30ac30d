"""JSON objects in files."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from weights_convert.write import replacing


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        ValueError: the file is missing, cannot be read, or does not hold a JSON object.
    """
    try:
        content: Any = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as JSON: {error}") from error
    except RecursionError:
        raise ValueError(f"{path} cannot be read as JSON: it is nested too deeply") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a JSON object, got {type(content).__name__}")
    return cast(dict[str, Any], content)


def write_json(path: str | os.PathLike[str], content: Mapping[str, Any]) -> None:
    """Writes a JSON object with sorted keys, by `replacing`."""
    text = json.dumps(dict(content), indent=2, sort_keys=True) + "\n"
    with replacing(Path(path)) as partial:
        partial.write_text(text, encoding="utf-8")
