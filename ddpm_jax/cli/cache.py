"""The compilation cache: XLA stores compiled programs, so a second run starts faster."""

import os
import sys
import tempfile
from pathlib import Path

from ddpm_jax.hub.files import cache_folder


def folder() -> Path:
    """`$XDG_CACHE_HOME/ddpm_jax/compiled`, by default under `~/.cache`; it need not exist."""
    return cache_folder() / "compiled"


def use(cache: Path) -> None:
    """Let jax store compiled programs in `cache`. If it is not writable, print a note and continue.

    A folder that the user chose with `JAX_COMPILATION_CACHE_DIR` has priority.
    """
    if os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=cache):
            pass
    except OSError as error:
        print(f"ddpm-jax: compiling without a cache: {error}", file=sys.stderr)
        return
    import jax

    jax.config.update("jax_compilation_cache_dir", str(cache))
    # By default jax caches only compilations of a second or more. That would leave out the many
    # small programs around the network.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
