"""Random combinations of the schedulers' fields and options against diffusers in float64.

`python -m tests.parity.sweep --only SEED/INDEX/NAME` runs one of them alone. SWEEP_SEED=n in the
environment draws others.
"""

import functools
import os

import pytest

from tests.parity.drawn import OPTIONS, Drawn, draw, options_of
from tests.parity.sweep import COMPARED, Outcome, outcome
from tests.schedulers.matrix import FAMILIES, Family

SEED = int(os.environ.get("SWEEP_SEED", "2026"))
EACH = 36  # of each scheduler


@functools.cache
def outcomes(family: Family) -> list[tuple[Drawn, Outcome]]:
    every = (draw(family, SEED, index) for index in range(EACH))
    return [(one, outcome(one.case)) for one in every]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_combination(family: Family) -> None:
    faults = [f"{one}: {of.fault}" for one, of in outcomes(family) if of.fault]
    assert not faults, "\n".join(faults)


def test_most_are_compared() -> None:
    """Those that a side refuses, or cannot run, do not count."""
    found = {f.name: sum(of.kind == COMPARED for _, of in outcomes(f)) for f in FAMILIES}
    assert sum(found.values()) >= 500
    assert min(found.values()) >= EACH // 4, found


def test_every_option_is_drawn() -> None:
    assert {option for family in FAMILIES for option in options_of(family)} == set(OPTIONS)
