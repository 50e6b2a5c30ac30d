"""The same bits from every compilation on a GPU.

There XLA tries several algorithms for a convolution or a matrix product, and takes the one that was
fastest at that moment; some also add in a changing order. These flags leave such algorithms out and
stop the trials, at some cost in speed. On a CPU they change nothing.
"""

import os

FLAGS = ("--xla_gpu_deterministic_ops=true", "--xla_gpu_autotune_level=0")


def use() -> None:
    """Adds the flags to XLA_FLAGS. XLA reads them once, when the process uses jax first."""
    given = os.environ.get("XLA_FLAGS", "").split()
    missing = [flag for flag in FLAGS if flag not in given]
    os.environ["XLA_FLAGS"] = " ".join([*given, *missing])
