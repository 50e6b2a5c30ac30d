"""The names of a model's classes: `id2label.json` next to `model_index.json`.

    {"0": "cat", "1": "dog"}

diffusers does not read this file in a `UNet2DModel`'s folder. Its name and format are those of
transformers' configs and diffusers' DiT.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from ddpm_jax.hub.files import faults_of, read_json, write_json

CLASS_NAMES = "id2label.json"
SHOWN = 20
"""Number of classes in a line of text. More would fill the screen."""


def write(folder: Path, names: Sequence[str]) -> None:
    """Writes the names of class 0, 1, ... into a pipeline's folder."""
    write_json(folder / CLASS_NAMES, {str(i): name for i, name in enumerate(names)})


def read(folder: Path) -> dict[int, str]:
    """The names of a pipeline's classes; empty if the folder has no such file.

    Raises:
        ValueError: the file is damaged.
    """
    path = folder / CLASS_NAMES
    if not path.is_file():
        return {}
    with faults_of(path):
        return dict(sorted((int(number), str(name)) for number, name in read_json(path).items()))


def in_words(names: Mapping[int, str]) -> str:
    """Text for one line: "0 cat, 1 dog", and the number of further classes."""
    shown = ", ".join(f"{number} {name}" for number, name in list(names.items())[:SHOWN])
    return shown if len(names) <= SHOWN else f"{shown} and {len(names) - SHOWN} more"
