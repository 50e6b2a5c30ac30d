"""Rows of options in which every pair of options occurs: few cases in place of all combinations."""

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

Case = dict[str, Any]
Factors = Mapping[str, list[Any]]


def pairs_of(case: Case) -> set[Any]:
    """Every two factors with their values."""
    values = ((name, str(value)) for name, value in case.items())
    return set(itertools.combinations(values, 2))


def all_pairs(factors: Factors) -> set[Any]:
    found = set()
    for (a, a_values), (b, b_values) in itertools.combinations(factors.items(), 2):
        found |= {((a, str(x)), (b, str(y))) for x in a_values for y in b_values}
    return found


def cases(factors: Factors) -> list[Case]:
    """Rows that hold all pairs: each the best of some drawn around a pair still missing."""
    rng, missing, found = np.random.default_rng(0), all_pairs(factors), []
    while missing:
        wanted = dict(min(missing))
        drawn = [
            {name: _draw(rng, values, wanted.get(name)) for name, values in factors.items()}
            for _ in range(60)
        ]
        best = max(drawn, key=lambda case: len(missing & pairs_of(case)))
        found.append(best)
        missing -= pairs_of(best)
    return found


def _draw(rng: np.random.Generator, values: list[Any], wanted: str | None) -> Any:
    fitting = [value for value in values if wanted is None or str(value) == wanted]
    return fitting[rng.integers(len(fitting))]
