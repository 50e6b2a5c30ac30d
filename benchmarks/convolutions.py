"""What the programs of `ddpm_jax.models.layers.cpu` gain over XLA's own convolution.

    python -m benchmarks.convolutions      about two minutes; a CPU

Both run in turn; the gain is the median of the ratios of their times, plain over program.
"""

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import rounds
from ddpm_jax.models.layers import cpu
from ddpm_jax.models.layers.plain import by_xla

ROUNDS = 15
EDGES = ((1, 1), (1, 1))
CASES = [  # program, batch, side, channels, whether its kernel's gradient is timed
    (cpu.dense, 1, 2, 256, False),
    (cpu.dense, 128, 2, 64, False),
    (cpu.im2col, 1, 8, 32, False),
    (cpu.im2col, 1, 4, 256, False),
    (cpu.one_row_more, 1, 32, 128, False),
    (cpu.one_row_more, 16, 32, 128, False),
    (cpu.in_parts, 16, 32, 128, True),
    (cpu.in_parts, 64, 16, 64, True),
]


def gain(
    program: cpu.Program, batch: int, side: int, channels: int, gradient: bool
) -> tuple[float, float]:
    """Plain over program; and the seconds of the program."""
    random = np.random.default_rng(0)
    x = jnp.asarray(random.standard_normal((batch, side, side, channels)), jnp.float32)
    kernel = jnp.asarray(random.standard_normal((3, 3, channels, channels)), jnp.float32)

    def compiled(convolve: cpu.Program) -> rounds.Run:
        def forward(kernel: jax.Array) -> jax.Array:
            return convolve(x, kernel, 1, EDGES)

        wanted = jax.grad(lambda kernel: jnp.square(forward(kernel)).sum()) if gradient else forward
        program = jax.jit(wanted).lower(kernel).compile()
        return lambda n: [jax.block_until_ready(program(kernel)) for _ in range(n)]

    runs = {"plain": compiled(by_xla), "program": compiled(program)}
    repeats = rounds.window(runs, 0.02, least=1)  # 20 ms a round
    taken = rounds.take(runs, repeats, ROUNDS, pause=0)
    seconds = rounds.spread([took["program"] / repeats for took in taken])
    return rounds.ratio(taken, "plain", "program").median, seconds.median


def main() -> None:
    print("program        batch  side  channels            gain   milliseconds")
    for program, batch, side, channels, gradient in CASES:
        ratio, time_taken = gain(program, batch, side, channels, gradient)
        name = getattr(program, "__name__", "one_row_more")
        what = "gradient" if gradient else "forward"
        print(
            f"{name:14} {batch:5} {side:5} {channels:9}  {what:8} {ratio:8.2f} "
            f"{1000 * time_taken:14.3f}"
        )


if __name__ == "__main__":
    main()
