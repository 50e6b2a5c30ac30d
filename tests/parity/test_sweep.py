"""Random combinations of the schedulers' fields and options against diffusers in float64.

The id of a test has the seed and the case; `python -m tests.parity.sweep --only SEED/INDEX/NAME`
runs it alone. SWEEP_SEED=n in the environment draws others.
"""

import functools
import os
from collections import Counter

import pytest

from tests.parity.drawn import OPTIONS, Drawn, all_drawn, options_of
from tests.parity.sweep import COMPARED, Outcome, outcome
from tests.schedulers.matrix import FAMILIES

SEED = int(os.environ.get("SWEEP_SEED", "2026"))
EACH = 36  # of each scheduler
COMBINATIONS = tuple(all_drawn(SEED, EACH))


@functools.cache
def outcome_of(one: Drawn) -> Outcome:
    return outcome(one.case)


@pytest.mark.parametrize("one", COMBINATIONS, ids=str)
def test_combination(one: Drawn) -> None:
    fault = outcome_of(one).fault
    assert not fault, f"{one}: {fault}"


def test_most_are_compared() -> None:
    """Those that a side refuses, or cannot run, do not count."""
    found = Counter(one.case.name for one in COMBINATIONS if outcome_of(one).kind == COMPARED)
    assert found.total() >= 500
    few = {f.name: found[f.cls.__name__] for f in FAMILIES if found[f.cls.__name__] < EACH // 4}
    assert not few


def test_every_option_is_drawn() -> None:
    assert {option for family in FAMILIES for option in options_of(family)} == set(OPTIONS)
