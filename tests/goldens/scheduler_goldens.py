"""Reads schedulers.npz, which `make_scheduler_goldens` writes."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

FILE = "schedulers.npz"


class Golden(NamedTuple):
    """What diffusers gives for a case, at `rows` of its path of `length` evaluations."""

    case: Any
    length: int
    rows: list[int]
    told: np.ndarray
    samples: np.ndarray


def kept_rows(length: int) -> list[int]:
    """The first rows, the middle, and the last ones of a path."""
    return sorted({0, 1, length // 2, length - 2, length - 1} & set(range(length)))


def goldens() -> Iterator[Golden]:
    from tests.parity.scheduler_cases import Case

    with np.load(Path(__file__).parent / FILE) as file:
        about = json.loads(str(file["about"]))
        told, samples, lengths = file["told"], file["samples"], file["lengths"].tolist()
    at = 0
    for fields, length in zip(about["cases"], lengths, strict=True):
        rows = kept_rows(length)
        here = slice(at, at + len(rows))
        yield Golden(Case(*fields), length, rows, told[here], samples[here])
        at += len(rows)
    assert at == len(samples)
