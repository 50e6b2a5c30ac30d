"""Writes schedulers.npz: paths of diffusers' schedulers in float64, for the suite without torch.

    python -m tests.goldens.make_scheduler_goldens

Runs diffusers lifted to float64 (`tests.parity.lifted`) on the cases that the file has: every pair
of options of five schedulers. Networks and noise are formulas (`tests.parity.scheduler_cases`), so
only results are kept: what the network was told, and the sample, at a few rows.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from tests.goldens.scheduler_goldens import FILE, goldens, kept_rows
from tests.parity.scheduler_cases import Case, network_of, noise_of


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

    cases = [golden.case for golden in goldens()]
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
