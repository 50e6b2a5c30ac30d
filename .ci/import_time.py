"""What `import ddpm_jax` takes on top of `import jax, flax`, as a part of what these take.

The least of fresh processes, since other work on the machine only adds; and a part, since machines
differ. As after an installation, which writes bytecode: the first process is not counted.
"""

import os
import subprocess
import sys

LIMIT = 0.35  # of jax and flax
PROCESSES = 9

# Within one process: the start of Python and jax varies by more than all that is ours.
MEASURE = """
import time
start = time.perf_counter()
import jax, flax
between = time.perf_counter()
import ddpm_jax
print(between - start, time.perf_counter() - between)
"""


def measured() -> list[float]:
    """Seconds of jax and flax, and of ours after them."""
    run = [sys.executable, "-c", MEASURE]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    printed = subprocess.run(run, check=True, capture_output=True, text=True, env=env).stdout
    return [float(word) for word in printed.split()]


def main() -> int:
    measured()
    base, more = map(min, zip(*(measured() for _ in range(PROCESSES)), strict=True))
    print(f"CI: import jax, flax {base:.2f} s; import ddpm_jax {more:.2f} s more")
    return int(more > LIMIT * base)


if __name__ == "__main__":
    sys.exit(main())
