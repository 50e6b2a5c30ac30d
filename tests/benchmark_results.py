"""Made-up results of the benchmarks, as their files have them."""

from typing import Any

from benchmarks.models import Configuration

MACHINE = {
    "cpu": "some",
    "cores": 2,
    "gpu": None,
    "memory_gib": 4,
    "system": "Linux",
    "python": "3.11",
    "versions": {"jax": "1"},
    "settings": {},
}

ENTRY = {"compile_seconds": 3.0, "compile_others_share": 0.0, "memory": {"process": 2**30}}
"""Of a library that was measured."""


def made_up(configuration: Configuration, took: dict[str, float], rounds: int) -> dict[str, Any]:
    """Equal rounds of ten evaluations or updates on an idle machine."""
    return {
        **configuration.as_dict(),
        "params": 5,
        "taken": "2026-01-01T00:00:00Z",
        "code": {"digest": "abc", "commit": None},
        "options": {"rounds": rounds},
        "load_average": [0.0, 0.0, 0.0],
        "contenders": dict.fromkeys(took, ENTRY),
        "evaluations": 10,
        "rounds": [took] * rounds,
        "others_share": 0.0,
    }
