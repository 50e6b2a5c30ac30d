"""Arrays of NumPy's files: one error for whatever is wrong with a file."""

import os
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path

import numpy as np

from ddpm_jax.hub.files import first_line, listed

FAULTS = (
    ValueError, EOFError, MemoryError, OverflowError, RuntimeError, SyntaxError, TypeError,
    struct.error, tokenize.TokenError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""What NumPy raises for a damaged file. MemoryError is for a header that states a huge
shape, RuntimeError for an encrypted member."""


def read_npz(
    path: str | os.PathLike[str], names: Collection[str] | None = None
) -> dict[str, np.ndarray]:
    """The arrays of an .npz file, without pickles.

    Args:
        path: the file.
        names: which arrays to read, if the file has them; None: all.

    Raises:
        ValueError: the file is damaged or no .npz file, or a member is no array.
        OSError: it is missing, or cannot be read.
    """
    if not zipfile.is_zipfile(path):
        Path(path).stat()  # FileNotFoundError
        raise ValueError(f"{path} is not a whole .npz file")
    try:
        # An open file, since NumPy leaves one open that it finds damaged.
        with Path(path).open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            found = {name: file[name] for name in file.files if names is None or name in names}
    except FAULTS as error:
        raise ValueError(f"{path} cannot be read as an .npz file: {first_line(error)}") from error
    # NumPy returns the bytes of a member that is no array.
    if others := [name for name, one in found.items() if not isinstance(one, np.ndarray)]:
        raise ValueError(f"{path} has members that are no arrays: {listed(others)}")
    return found
