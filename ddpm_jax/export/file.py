"""The file of an exported sampler: an .npz that NumPy reads, without pickles.

    about                what it is and how it is called, JSON
    program/PLATFORM     one of jax.export's programs, bytes as uint8, for cpu, cuda, ...
    weights/NAME         the first argument of each program: all weights, by these names

Weights of a type that NumPy lacks (bfloat16) are unsigned integers with their bits, which the
programs take as they are.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ddpm_jax.hub.files import first_line, replacing
from ddpm_jax.hub.npz import read_npz

FORMAT = "ddpm_jax.Sampler 1"
ABOUT = "about"
PROGRAM = "program/"
WEIGHTS = "weights/"


class Content(NamedTuple):
    """What the file holds.

    Attributes:
        about: what it is and how it is called.
        programs: of jax.export, by platform.
        weights: their first argument, by name with the prefix.
    """

    about: Mapping[str, Any]
    programs: Mapping[str, bytes]
    weights: Mapping[str, np.ndarray]


def write(path: str | os.PathLike[str], content: Content) -> None:
    """Writes the file, whole or not at all."""
    text = json.dumps({"format": FORMAT, **content.about}, indent=1)
    arrays: dict[str, Any] = {ABOUT: np.array(text), **content.weights}
    for name, program in content.programs.items():
        arrays[PROGRAM + name] = np.frombuffer(program, np.uint8)
    with replacing(Path(path)) as partial, partial.open("wb") as file:
        np.savez(file, **arrays)


def read(path: str | os.PathLike[str]) -> Content:
    """Reads the file.

    Raises:
        ValueError: it is missing, damaged, or something else.
    """
    try:
        arrays = read_npz(path)
        about = json.loads(str(arrays[ABOUT]))
        if not isinstance(about, dict) or about.get("format") != FORMAT:
            raise ValueError(f'its "format" is not "{FORMAT}"')
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist") from None
    except KeyError:
        raise ValueError(f'{path} is no exported sampler: it has no "{ABOUT}"') from None
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} is no exported sampler, or it is damaged: {first_line(error)}"
        ) from error
    programs = {
        name.removeprefix(PROGRAM): array.tobytes()
        for name, array in arrays.items()
        if name.startswith(PROGRAM)
    }
    weights = {name: array for name, array in arrays.items() if name.startswith(WEIGHTS)}
    return Content(about, programs, weights)
