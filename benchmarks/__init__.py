"""Benchmarks: what is measured, and against what, is in README.md beside this file."""

import os

# Before jax and torch are imported. Both libraries share one process, and on a GPU its memory;
# and the first call is to compile, not to read what an earlier process compiled.
os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"
os.environ["TORCHINDUCTOR_FORCE_DISABLE_CACHES"] = "1"
