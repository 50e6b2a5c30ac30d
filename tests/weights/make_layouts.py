"""Writes tests/data/layouts.npz: what the networks of `layout_cases` compute.

    PYTHONPATH=tests:. python tests/weights/make_layouts.py

The outputs are those of tests/parity/torch_foreign.py, in float64. Made with torch 2.13.0.
"""

from pathlib import Path

import numpy as np
import torch
from parity import torch_foreign
from weights.layout_cases import CASES, Case

OUT = Path(__file__).parents[1] / "data" / "layouts.npz"


def output(case: Case) -> np.ndarray:
    state = {name: torch.from_numpy(one).double() for name, one in case.state().items()}
    x, times = torch.from_numpy(case.x()).double(), torch.tensor(case.times)
    torch.set_default_dtype(torch.float64)
    if case.layout == "ddpm":
        return torch_foreign.ddpm(state, x, times.double()).numpy()
    return torch_foreign.openai(
        state,
        x,
        times.double(),
        None if case.labels is None else torch.tensor(case.labels),
        order=case.settings.get("head_order", "new"),
        heads=case.settings.get("num_heads"),
        head_channels=case.settings.get("num_head_channels"),
    ).numpy()


if __name__ == "__main__":
    found = {name: output(case).astype(np.float32) for name, case in CASES.items()}
    np.savez_compressed(OUT, **found)
