"""What stops a run."""

import math

import pytest

from ddpm_jax.training.run.guards import TrainingError, Watch


def test_numbers_that_are_none_are_named():
    with pytest.raises(TrainingError) as stopped:
        Watch(10).see(7, {"loss": 0.5, "grad_norm": math.inf}, list(range(20)))
    assert str(stopped.value) == (
        "update 7: grad_norm is inf "
        "(images 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 and 4 more)"
    )


def feed(watch: Watch, losses: list[float]) -> None:
    for step, loss in enumerate(losses, start=1):
        watch.see(step, {"loss": loss})


def test_divergence_is_a_mean_above_the_lowest():
    feed(Watch(10), [1.0] * 60 + [400.0])  # one outlier: a mean of 9
    with pytest.raises(TrainingError, match="update 62: the loss diverges, 17 over the last 50"):
        feed(Watch(10), [1.0] * 60 + [400.0, 400.0])
    feed(Watch(0), [1.0] * 60 + [400.0] * 60)  # 0 asks for none


def test_it_goes_on_from_its_state():
    first, second = Watch(10), Watch(10)
    feed(first, [1.0] * 60 + [300.0])
    second.restore(first.state())
    with pytest.raises(TrainingError, match="diverges"):
        second.see(62, {"loss": 400.0})
    fresh = Watch(10)
    fresh.restore(Watch(10).state())
    fresh.see(1, {"loss": 5.0})
