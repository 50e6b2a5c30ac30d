"""Rounds, comparisons and tables, on made-up contenders."""

import time
from argparse import Namespace
from typing import Any

import pytest

from benchmarks import contenders, report, rounds

OPTIONS = Namespace(rounds=3, seconds=0.001, no_compile=True)


class Made:
    """A contender with a given output."""

    def __init__(self, output: float):
        self.output = output

    def run(self, units: int) -> None:
        """Takes no time."""

    def outputs(self) -> dict[str, Any]:
        return {"network": self.output}


def made_row(theirs: float) -> dict[str, Any]:
    """The row of diffusers, where 1e-5 is allowed and our output is 1."""
    _, row = contenders.compare(
        Made(1.0), lambda _compiled: Made(theirs), lambda _name, _what: 1e-5, OPTIONS
    )
    return row


def test_a_ratio_is_taken_within_rounds() -> None:
    taken = [{"ddpm_jax": t, "diffusers": 1.5 * t} for t in (1.0, 5.0, 2.0, 9.0)]
    assert rounds.ratio(taken, "diffusers", "ddpm_jax") == (1.5, 1.5, 1.5)


def test_a_spread_is_a_median_between_quartiles() -> None:
    assert rounds.spread([5.0, 1.0, 2.0, 4.0, 3.0]) == (2.0, 3.0, 4.0)
    assert str(rounds.Spread(0.9, 1.0, 1.25)) == "1.00 (0.90 to 1.25)"
    assert rounds.Spread(-0.01, 0.0, 0.02).percent() == "0.0 % (-1.0 to 2.0)"


def test_the_order_turns() -> None:
    order = ""

    def log(text: str) -> None:
        nonlocal order
        order += text

    runs = {name: lambda n, name=name: log(f"{name}{n} ") for name in "abc"}
    taken = rounds.take(runs, 7, 4, pause=0)
    assert order == "a7 b7 c7 b7 c7 a7 c7 a7 b7 a7 b7 c7 "
    assert [set(took) for took in taken] == [set("abc")] * 4


def test_no_round_is_begun_that_would_end_too_late() -> None:
    runs = {"a": lambda n: None}
    assert len(rounds.take(runs, 1, 5, pause=0, left=lambda: -1.0)) == rounds.LEAST
    assert len(rounds.take(runs, 1, 5, pause=0, left=lambda: 60.0)) == 5


def test_a_window_has_bounds() -> None:
    runs = {"a": lambda n: None}
    assert rounds.window(runs, 60.0) == rounds.MOST
    assert rounds.window(runs, 0.0, least=8) == 8


def test_only_equal_outputs_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)  # between windows
    assert made_row(1.0 + 1e-6)["units"] >= 2
    assert len(made_row(1.0)["seconds"]) == OPTIONS.rounds
    assert "network by 1.0e-01, 1e-05 is allowed" in made_row(1.1)["error"]
    assert "seconds" not in made_row(float("nan"))


def test_a_table_says_what_was_measured_and_what_failed() -> None:
    case = {"network": "cifar10", "batch": 4, "precision": "float32"}
    figures = {"rate": 5.0, "ratio": [1.9, 2.0, 2.1], "first_call": 3.0}
    ours = case | figures | {"library": "ddpm_jax"}
    theirs = case | figures | {"library": "diffusers", "difference": {"a": 1e-6, "b": 2e-6}}
    failed = case | {"library": "torch.compile", "error": "OSError: no g++ | clang"}
    lines = report.contender_table([ours, theirs, failed], "updates").splitlines()
    assert lines[2:] == [
        "| cifar10 | 4 | float32 | ddpm_jax | 5 |  | 3.0 |  |",
        "| cifar10 | 4 | float32 | diffusers | 5 | 2.00 (1.90 to 2.10) | 3.0 | 2e-06 |",
        "| cifar10 | 4 | float32 | torch.compile | not timed: OSError: no g++ / clang |  |  |  |",
    ]
