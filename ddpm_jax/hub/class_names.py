"""The names of a model's classes: `id2label.json` next to `model_index.json`.

    {"0": "cat", "1": "dog"}

diffusers does not read this file in a `UNet2DModel`'s folder. Its name and format are those of
transformers' configs and diffusers' DiT.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from ddpm_jax.hub.files import faults_of, listed, read_json, write_json

CLASS_NAMES = "id2label.json"
NO_CLASS = "no class"
"""The name of the class that a network was trained on where labels were dropped."""


def write(folder: Path, names: Mapping[int, str]) -> None:
    """Writes the names of the classes by number into a pipeline's folder."""
    write_json(folder / CLASS_NAMES, {str(number): name for number, name in names.items()})


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


def numbers_of(labels: Sequence[str | int], names: Mapping[int, str]) -> list[int]:
    """Classes as numbers. A text is a class's name, or its number if no class has that name.

    Raises:
        ValueError: a name that no class has; lists the names.
    """
    by_name: dict[str | int, int] = {name: number for number, name in names.items()}
    unknown = [one for one in labels if one not in by_name and not _is_number(one)]
    if unknown:
        known = in_words(names) or "this model's classes have no names"
        raise ValueError(f"no class is named {listed(unknown)}: {known}")
    return [by_name[one] if one in by_name else int(one) for one in labels]


def _is_number(label: str | int) -> bool:
    return not isinstance(label, str) or label.removeprefix("-").isdecimal()


def no_class(names: Mapping[int, str]) -> int | None:
    """The number of the class that means no class; None if there is none."""
    return next((number for number, name in names.items() if name == NO_CLASS), None)


def in_words(names: Mapping[int, str]) -> str:
    """Text for one line: "0 cat, 1 dog", and the number of further classes."""
    return listed(f"{number} {name}" for number, name in names.items())
