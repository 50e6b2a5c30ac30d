"""RePaint's walk up and down; its marginals are in test_marginals.py."""

import numpy as np
import pytest

import ddpm_jax as dj

COLUMNS = ("timestep", "level", "in_scale", "mix", "to_x0", "noise_scale")


@pytest.mark.parametrize("eta", [0.4, 1.0])
def test_without_jumps_it_is_ddim(eta: float) -> None:
    repaint = dj.RePaintScheduler(eta=eta).table(10, jump_n_sample=1, dtype=np.float64)
    ddim = dj.DDIMScheduler().table(10, eta=eta, dtype=np.float64)
    for name in COLUMNS:
        np.testing.assert_allclose(getattr(repaint, name), getattr(ddim, name), rtol=1e-13)


def test_its_evaluations() -> None:
    """Stretches of two steps run three times, but for the first: no jump starts above it."""
    table = dj.RePaintScheduler().table(6, jump_length=2, jump_n_sample=3)
    walk = [5, 4, 3, 2, 3, 2, 3, 2, 1, 0, 1, 0, 1, 0]
    assert table.timestep.tolist() == [166 * step for step in walk]
    assert len(dj.RePaintScheduler().table(250)) == 250 + 24 * 9 * 10  # the paper's 250, 10, 10
    assert len(dj.RePaintScheduler().table(10)) == 10  # no more steps than a jump has


def test_start_is_the_run_of_the_steps_that_are_left() -> None:
    scheduler, jumps = dj.RePaintScheduler(), {"jump_length": 2, "jump_n_sample": 3}
    grid = [k * 100 for k in reversed(range(10))]
    for k in (1, 4, 9):
        part = scheduler.table(10, start=k, **jumps)
        again = scheduler.table(timesteps=grid[k:], **jumps)
        for name in COLUMNS:
            np.testing.assert_array_equal(getattr(part, name), getattr(again, name))


def test_a_jump_adds_the_noise_of_the_forward_process() -> None:
    """From the data up to sigma: all of it is that row's noise."""
    table = dj.RePaintScheduler().table(6, jump_length=2, jump_n_sample=2, dtype=np.float64)
    (row,) = (i for i in range(len(table) - 1) if table.timestep[i] == 0)
    alpha, sigma = table.level[row + 1]
    assert table.noise_scale[row] == pytest.approx(sigma, rel=1e-14)
    np.testing.assert_allclose(table.mix[row, 0], [0, 0, alpha], atol=1e-15)
