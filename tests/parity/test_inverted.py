"""DDIM walked up, against diffusers' DDIMInverseScheduler, in its float32."""

from typing import Any

import diffusers
import numpy as np
import pytest
import torch

import ddpm_jax as dj
from tests.schedulers.propagate import propagate

FLOAT32 = 2e-5
"""Of the largest sample on the path. Measured 7e-6, after 1000 steps."""


@pytest.mark.parametrize("steps", [10, 50, 1000])
@pytest.mark.parametrize("config", [{}, {"beta_schedule": "scaled_linear"}], ids=str)
def test_ddim_inverse(steps: int, config: dict[str, Any]):
    peer = diffusers.DDIMInverseScheduler(**config, clip_sample=False)
    peer.set_timesteps(steps)
    table = dj.DDIMScheduler(**config, clip_sample=False).table(steps, dtype=np.float64)
    up = dj.inverted(table, np.float64)
    assert up.timestep.tolist() == peer.timesteps.tolist()

    def network(x: np.ndarray, i: int) -> np.ndarray:
        return 0.9 * np.sin(0.5 * x + 1.3 * i)

    x = np.random.default_rng(0).uniform(-1, 1, (1, 1, 3, 2))
    ours = propagate(up, network, np.moveaxis(x, 1, -1))
    sample = torch.from_numpy(x).float()
    scale = np.abs(ours).max()
    for i, t in enumerate(peer.timesteps):
        output = torch.from_numpy(network(sample.numpy(), i))
        sample = peer.step(output, t, sample).prev_sample
        assert np.abs(np.moveaxis(sample.numpy(), 1, -1) - ours[i]).max() <= FLOAT32 * scale
