"""The figures that README and docs quote are those of the committed results."""

import json
import math
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def results(name: str) -> dict[str, Any]:
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())


def column(rows: list[dict[str, Any]], library: str, figure: str) -> list[float]:
    """A figure of a library, by batch; of a ratio, its median."""
    found = [row[figure] for row in rows if row["library"] == library]
    return [value[1] if figure == "ratio" else value for value in found]


def missing(page: str, quotes: list[str]) -> list[str]:
    text = " ".join((ROOT / page).read_text().split())
    return [quote for quote in quotes if quote not in text]


def test_sampling() -> None:
    document = results("sampling-cpu")
    rows, machine = document["sampling"], document["machine"]
    eager = column(rows, "diffusers", "ratio")
    compiled = column(rows, "torch.compile", "ratio")
    ours, theirs = (column(rows, name, "first_call") for name in ("ddpm_jax", "torch.compile"))
    quotes = [
        "{:.2f} at batch 1, {:.2f} at 4 and {:.2f} at 16".format(*eager),
        f"on {machine['cores']} cores ({machine['cpu'].partition(' (family')[0]})",
        "against `torch.compile` {:.2f}, {:.2f} and {:.2f}".format(*compiled),
        f"takes at most {math.ceil(max(ours))} s to compile",
        f"`torch.compile` {min(theirs):.0f} to {max(theirs):.0f} s",
    ]
    assert missing("README.md", quotes) == []


def test_the_cost_on_many_devices() -> None:
    rows = results("sampling-cpu")["sampling"]
    (rate,) = (row["rate"] for row in rows if row["library"] == "ddpm_jax" and row["batch"] == 16)
    quotes = [f"a batch of 16 takes {1 / rate:.2f} s for one evaluation, {50 / rate:.0f} s for 50"]
    assert missing("docs/scaling.md", quotes) == []


def test_training() -> None:
    rows = results("training-cpu")["training"]
    (eager,), (compiled,) = (column(rows, n, "ratio") for n in ("diffusers", "torch.compile"))
    (ours,), (theirs,) = (column(rows, n, "first_call") for n in ("ddpm_jax", "torch.compile"))
    quotes = [
        f"{eager:.2f} times the updates a second of a plain torch loop",
        f"{compiled:.2f} times those of `torch.compile`",
        f"takes {ours:.0f} s to compile, `torch.compile` {theirs:.0f} s",
    ]
    assert missing("README.md", quotes) == []


def test_likelihood() -> None:
    figures = results("likelihood-digits")["figures"]
    whole, last = figures["bound"], results("likelihood-digits")["curve"][-1]
    quotes = [
        f"| {figures[name]['num']} | {figures[name]['mean']:.3f} ± "
        f"{figures[name]['standard_error']:.3f} |"
        for name in ("bound", "bound_estimate", "flow")
    ]
    quotes += [
        f"a rate of {whole['rate']:.3f} and a decoder's {whole['decoder']:.3f}",
        f"is {last['rmse']:.3f} of 255",
    ]
    assert missing("docs/likelihood.md", quotes) == []


def test_digits() -> None:
    readable, diverse, alike = results("digits_quality")["verdict"].values()
    shares, real = (sorted(100 * share for share in diverse[name]) for name in ("shares", "real"))
    quotes = [
        f"{100 * readable['generated']:.1f} % | {100 * readable['held_out_real']:.1f} % of",
        f"{shares[0]:.1f} %, {shares[-1]:.1f} % | {real[0]:.1f} %, {real[-1]:.1f} %",
        f"{alike['to_halves']:.3f} | {alike['between_halves']:.3f} between",
    ]
    assert missing("docs/training.md", quotes) == []
