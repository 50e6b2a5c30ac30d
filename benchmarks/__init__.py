"""Benchmarks. README.md in this folder says what is measured, and against what."""

import os
import sys

if "jax" not in sys.modules:  # later they would change nothing here, but child processes
    # Both libraries share one process, and on a GPU its memory. The first call is to compile, not
    # to read what an earlier process compiled.
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"
    os.environ["TORCHINDUCTOR_FORCE_DISABLE_CACHES"] = "1"
