"""Paths of diffusers' schedulers, recorded in float64: parity for the suite without torch.

The file, its script and the versions that made it are in tests/goldens.
"""

import numpy as np
import pytest

import ddpm_jax as dj
from tests.goldens.scheduler_goldens import Golden, goldens
from tests.parity.scheduler_cases import network_of, noise_of
from tests.schedulers.propagate import propagate

# Relative to the sample. Two correct alpha_bar differ in the last place, of which 1 - alpha_bar_0
# = 1e-4 makes four digits, and cosine grids divide by an alpha of 5e-5; measured 6e-12 at most.
RECORDED = 2e-11

GOLDENS = tuple(goldens())
NAMES = sorted({golden.case.name for golden in GOLDENS})


def difference(golden: Golden) -> float:
    case = golden.case
    table = getattr(dj, case.name)(**case.config).table(case.steps, dtype=np.float64, **case.call)
    assert len(table) == golden.length
    np.testing.assert_allclose(table.timestep[golden.rows], golden.told, rtol=1e-6, atol=1e-6)
    z, *noise = noise_of(case)
    scale = 1.0 if case.call else float(table.init_scale)
    samples = propagate(table, network_of(case), scale * z, noise)
    return max(
        float(np.abs(samples[i] - expected).max() / np.abs(expected).max())
        for i, expected in zip(golden.rows, golden.samples, strict=True)
    )


@pytest.mark.parametrize("name", NAMES)
def test_recorded_paths(name: str) -> None:
    found = {str(g.case): difference(g) for g in GOLDENS if g.case.name == name}
    assert len(found) >= 20
    wrong = {case: value for case, value in found.items() if not value <= RECORDED}
    assert not wrong, "\n".join(f"{value:.1e} {case}" for case, value in wrong.items())
