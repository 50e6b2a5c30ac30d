"""One run in a folder at a time."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ddpm_jax.training.data.needs import missing

LOCK_NAME = ".lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps other runs out of a folder; the lock ends with the process, however that ends.

    Raises:
        ValueError: a run is under way there.
        OSError: the folder cannot be written to.
    """
    try:
        from filelock import FileLock, Timeout
    except ImportError as error:
        raise missing("filelock", "a training run") from error
    lock = FileLock(folder / LOCK_NAME)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(
            f"another run is under way in {folder}: wait for it, end it, or take another folder"
        ) from None
    except NotImplementedError:  # some network file systems have no locks
        warnings.warn(f"{folder} cannot be locked: see that no other run uses it", stacklevel=3)
    try:
        yield
    finally:
        lock.release()
