"""RePaint's known part against diffusers, in float64; test_schedulers.py has the steps."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import ddpm_jax as dj
from tests.parity import lifted, peers
from tests.parity.scheduler_cases import SHAPE, Case, network_of, noise_of
from tests.schedulers.propagate import propagate

COLUMNS = ("timestep", "level", "in_scale", "mix", "to_x0", "noise_scale")


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_the_known_part(eta: float) -> None:
    """Put back before each evaluation with the noise of the row before, and at the end."""
    jumps: dict[str, Any] = {"jump_length": 4, "jump_n_sample": 3}
    case = Case("RePaintScheduler", 20, {"num_train_timesteps": 20, "eta": eta}, jumps)
    rng = np.random.default_rng(0)
    known, mask = rng.uniform(-1, 1, SHAPE), (rng.random(SHAPE) < 0.5).astype(float)
    network, (x, *noise) = network_of(case), noise_of(case)
    scheduler = dj.RePaintScheduler(**case.config)
    table = scheduler.table(20, dtype=np.float64, **jumps)

    ours = [x]
    for i in range(len(table)):
        row = replace(table, **{name: getattr(table, name)[i : i + 1] for name in COLUMNS})
        (after,) = propagate(row, lambda x, _, i=i: network(x, i), ours[-1], noise[i : i + 1])
        # As `WithKnown` before the next evaluation, and after the last one.
        alpha, sigma = table.level[i + 1] if i + 1 < len(table) else (1.0, 0.0)
        ours.append(mask * after + (1 - mask) * (alpha * known + sigma * noise[i]))
    with lifted.lifted():
        bar = scheduler.noise_schedule.alpha_bar
        peer = lifted.build(case.name, bar, **case.config)
        given = (peer, 20, network, x, noise)
        run = peers.follow(case.name, *given, known=known, mask=mask, **jumps)
    assert len(table) == len(run.samples) == 20 + 4 * 2 * 4
    for a, b in zip(ours[1:], run.samples, strict=True):
        assert np.abs(a - b).max() <= 1e-12 * np.abs(b).max()
