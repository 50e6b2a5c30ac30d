"""Tables as text."""

from collections.abc import Sequence

from ddpm_jax.tables.refine import Refine
from ddpm_jax.tables.table import Row, Table


def describe(table: Table) -> str:
    """A table as text, one line per row: `x <- 0.993 x - 0.021 output + 0.01 z`.

    Registers after the sample are named r1, r2, ... A register that does not change is left out.
    `z` is new unit noise.

    >>> import ddpm_jax as dj
    >>> print(dj.describe(dj.DDIMScheduler(clip_sample=False).table(2)))
    2 network evaluations, 1 register, deterministic, x starts with standard deviation 1
    0  t 500       x <- 3.585 x - 3.433 output
    1  t 0         x <- 1 x - 0.01 output
    """
    count, registers = len(table), table.num_registers
    noise = "deterministic" if table.noise_scale is None else "stochastic"
    head = (
        f"{count} network evaluations, {registers} register{'s' if registers > 1 else ''}, "
        f"{noise}, x starts with standard deviation {float(table.init_scale):.4g}"
    )
    if table.refine is not None:
        head += f", x0 refined by {_refine_text(table.refine)}"
    width = len(str(count - 1))
    return "\n".join(
        [head, *(f"{i:{width}d}  {_row_text(row)}" for i, row in enumerate(table))]
    )  # fmt: skip


def _refine_text(refine: Refine) -> str:
    numbers = ", ".join(f"{k}={float(v):g}" for k, v in vars(refine).items())
    return f"{type(refine).__name__}({numbers})"


def _row_text(row: Row) -> str:
    registers = row.mix.shape[0]
    names = ("x", *(f"r{k}" for k in range(1, registers)))
    sources = (*names, "output", "x0")
    updates: list[str] = []
    for k, name in enumerate(names):
        terms = [(float(value), source) for value, source in zip(row.mix[k], sources, strict=False)]
        if k == 0 and row.noise_scale is not None:
            terms.append((float(row.noise_scale), "z" if row.log_var is None else _std_text(row)))
        text = _sum_text(terms)
        if text != name:
            updates.append(f"{name} <- {text}")
    scale = "" if row.in_scale == 1 else f", input {float(row.in_scale):.4g} x"
    return f"t {float(row.timestep):<8.6g}{scale}  {'; '.join(updates) or 'x unchanged'}"


def _std_text(row: Row) -> str:
    low, high = map(float, row.log_var)
    return f"exp(lerp({low:.3g}, {high:.3g}) / 2) z"


def _sum_text(terms: Sequence[tuple[float, str]]) -> str:
    """`1 x`, `0 y` and `-2 z` as "x - 2 z"."""
    text = ""
    for value, name in terms:
        if value == 0:
            continue
        sign = (" - " if value < 0 else " + ") if text else ("-" if value < 0 else "")
        text += sign + (name if abs(value) == 1 else f"{abs(value):.4g} {name}")
    return text or "0"
