"""Writes schedulers.npz: paths of diffusers' schedulers in float64, for the suite without torch.

    python -m tests.goldens.make_scheduler_goldens

Takes from `tests.parity.scheduler_cases` as many cases as it needs for every pair of options to
occur, and runs diffusers lifted to float64 on them (`tests.parity.lifted`). Networks and noise are
formulas there, so only results are kept: what the network was told, and the sample, at a few rows.
"""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np

from tests.goldens.scheduler_goldens import FILE, kept_rows
from tests.parity.scheduler_cases import GROUPS, Case, network_of, noise_of


def options_of(case: Case) -> list[tuple[str, str]]:
    options = case.config | case.call | {"steps": case.steps}
    return [(key, json.dumps(value)) for key, value in sorted(options.items())]


def chosen() -> list[Case]:
    """Cases in order, each with a pair of options of its scheduler that none before it has."""
    cases, seen = [], set()
    for group in GROUPS.values():
        for case in group:
            if case.steps > case.config.get("num_train_timesteps", 1000):
                continue
            options = options_of(case)
            pairs = {(case.name, *pair) for pair in itertools.combinations(options, 2)}
            pairs |= {(case.name, option, ("", "")) for option in options}
            if pairs - seen:
                cases.append(case)
                seen |= pairs
    return cases


def path_of(case: Case) -> tuple[list[float], list[np.ndarray], int]:
    from tests.parity import peers

    z, *noise = noise_of(case)
    # The prior's scale is one of the results, so a first run finds it.
    scale = peers.peer(case, network_of(case), z, noise).init_scale if not case.call else 1.0
    run = peers.peer(case, network_of(case), scale * z, noise)
    rows = kept_rows(len(run.samples))
    told = [run.timesteps[i] for i in rows]
    return told, [run.samples[i] for i in rows], len(run.samples)


def main() -> None:
    import diffusers
    import torch

    from tests.parity import lifted

    cases = chosen()
    told: list[float] = []
    samples: list[np.ndarray] = []
    lengths: list[int] = []
    with lifted.lifted():
        for case in cases:
            case_told, case_samples, length = path_of(case)
            told += case_told
            samples += case_samples
            lengths.append(length)
    about: dict[str, Any] = {
        "diffusers": diffusers.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "cases": [[c.name, c.steps, c.config, c.call] for c in cases],
    }
    np.savez_compressed(
        Path(__file__).parent / FILE,
        about=np.array(json.dumps(about)),
        told=np.array(told),
        samples=np.array(samples),
        lengths=np.array(lengths),
    )
    print(f"{len(cases)} cases, {len(samples)} samples")


if __name__ == "__main__":
    main()
