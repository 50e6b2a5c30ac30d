"""Where this package keeps, between runs, what it can make again."""

import os
from pathlib import Path


def user_cache() -> Path:
    """`$XDG_CACHE_HOME/ddpm_jax`, by default `~/.cache/ddpm_jax`; it need not exist."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "ddpm_jax"
