"""Checkpoints of a state of two numbers: which are kept."""

from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
import pytest

from ddpm_jax.training.run.checkpoint import Checkpoints
from ddpm_jax.training.state import init_state

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.mark.parametrize(
    ("keep_last", "keep_best", "kept"), [(1, 1, [8, 14]), (2, 0, [12, 14]), (1, 2, [8, 12, 14])]
)
def test_the_last_and_the_best_are_kept(
    tmp_path: Path, keep_last: int, keep_best: int, kept: list[int]
):
    """One without a held-out loss is none of the best."""
    losses = {4: 0.3, 8: 0.1, 12: 0.2, 14: None}
    state = init_state({"w": jnp.zeros(2)}, optax.sgd(0.1), jax.random.key(0))
    with Checkpoints(tmp_path / "saved", keep_last=keep_last, keep_best=keep_best) as saved:
        for step, loss in losses.items():
            saved.save(replace(state, step=jnp.int32(step)), {"of": step}, held_out=loss)
    with Checkpoints(tmp_path / "saved") as found:
        assert found.steps() == kept
        assert found.restore(state).extra == {"of": 14}
