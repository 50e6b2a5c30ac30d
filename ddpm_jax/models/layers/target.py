"""The platform that a program is traced for: the default backend, unless it is exported.

Some layers choose their program by the platform while they are traced (`cpu`, `cudnn`). jax
compiles most traces at once for the default backend, but exports are traced here and compiled
elsewhere. `exported_to` says for what.

jax keeps traces by the function and its static arguments, and does not see `exported_to`. So only
a function that is equal to no function for another platform may enter it, as
`ddpm_jax.export.program.For` does.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import jax

_exported: ContextVar[str | None] = ContextVar("_exported", default=None)


@contextmanager
def exported_to(platform: str) -> Iterator[None]:
    """What is traced in the block is exported to a platform, by jax's name: cpu, cuda, tpu."""
    token = _exported.set(platform)
    try:
        yield
    finally:
        _exported.reset(token)


def is_cpu() -> bool:
    """Whether the program will run on a CPU."""
    return (_exported.get() or jax.default_backend()) == "cpu"


def is_exported() -> bool:
    """Whether the program will run elsewhere, so that this machine's devices say nothing of it."""
    return _exported.get() is not None
