"""What `import ddpm_jax` takes on top of `import jax, flax`.

Medians over fresh processes, the two kinds in turn; of the difference, within a turn.
"""

import statistics
import subprocess
import sys
import time

LIMIT = 0.3  # seconds
PAIRS = 9


def seconds(statement: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return time.perf_counter() - start


def main() -> int:
    pairs = [(seconds("import jax, flax"), seconds("import ddpm_jax")) for _ in range(PAIRS + 1)]
    # The first pair reads the files into the cache of the operating system.
    base, ours = (statistics.median(times) for times in zip(*pairs[1:], strict=True))
    more = statistics.median(ours - base for base, ours in pairs[1:])  # the machine's speed drifts
    print(f"CI: import jax, flax {base:.2f} s; import ddpm_jax {ours:.2f} s; {more:.2f} s more")
    return int(more > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
