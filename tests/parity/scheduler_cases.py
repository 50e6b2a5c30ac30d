"""What is compared with diffusers: every case of the schedulers' matrix, and stand-in networks.

Needs no torch: the golden files' script and the tests of both suites share it.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tests.schedulers.matrix import CASES, FEWEST, Family

SHAPE = (2, 3, 2, 1)  # (B, H, W, C)
STEPS = (1, 3, 10)
LONG = (37, 1000)
"""Of some plain schedulers: 37 does not divide 1000, and gives an odd stride."""
LONG_RUNS = ("DDPMScheduler", "DDIMScheduler", "PNDMScheduler", "EulerDiscreteScheduler")

# Of fields that choose by name, what diffusers does not have.
OURS_ALONE = {"timestep_spacing": ("quadratic",)}

# Slopes of networks whose input is x itself, up to sigma_max, and whose output is multiplied by
# sigma or its square.
UNSCALED = {"KarrasVeScheduler": 1e-3, "ScoreSdeVeScheduler": 1e-7}


@dataclasses.dataclass(frozen=True)
class Case:
    """A scheduler, its config, what `table` takes, and a number of steps."""

    name: str
    steps: int
    config: dict[str, Any]
    call: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        shown = {
            k: "..." if isinstance(v, list) or callable(v) else v
            for k, v in (self.config | self.call).items()
        }
        options = ",".join(f"{key}={value}" for key, value in shown.items())
        return f"{self.name.removesuffix('Scheduler')}-{self.steps}({options})"


def network_of(case: Case) -> Callable[[np.ndarray, int], np.ndarray]:
    """A smooth network of (scaled sample, index of the evaluation), the same in every library.

    Its slope stays under one half, and far under it on cosine grids, whose first step multiplies by
    thousands: rounding must not grow along a path. Clipping and thresholding are reached, since the
    predicted x0 passes 1.
    """
    variance = case.config.get("variance_type") or ""
    slope = 1e-3 if case.config.get("beta_schedule") == "squaredcos_cap_v2" else 0.5
    slope = UNSCALED.get(case.name, slope)
    place = np.arange(np.prod(SHAPE[1:])).reshape(SHAPE[1:])

    def network(x: np.ndarray, i: int) -> np.ndarray:
        output = 0.9 * np.sin(slope * x + 0.7 * place + 1.3 * i) + 0.8 * np.cos(
            2.1 * place + 0.4 * i
        )
        extra = 0.9 * np.sin(x + 0.3 * place + 0.9 * i)  # within [-1, 1]
        if variance == "learned":
            extra = 2 * extra - 3  # a log variance
        return np.concatenate([output, extra], -1) if variance.startswith("learned") else output

    return network


def noise_of(case: Case) -> list[np.ndarray]:
    """Stands in for unit noise; a formula, so that golden files need not hold it."""
    place = np.arange(np.prod(SHAPE)).reshape(SHAPE)
    # at most two a step, as a rule
    rows = case.steps * (case.call.get("jump_n_sample", 1) + case.config.get("correct_steps", 1))
    return [1.4 * np.sin(12.9898 * place + 78.233 * i + 0.5) for i in range(rows + 1)]


def cases_of(family: Family) -> Iterator[Case]:
    """Each case of the matrix that diffusers may know, with the options of a run, and `GIVEN`."""
    name = family.cls.__name__
    for one in CASES:
        config = dict(one.config)
        if one.family != family or any(config.get(k) in v for k, v in OURS_ALONE.items()):
            continue
        most = getattr(one.scheduler, FEWEST, one.get("num_train_timesteps"))
        for call in (*one.deterministic, *one.stochastic):
            yield from (Case(name, steps, config, call) for steps in STEPS if steps <= most)
    yield from (Case(name, steps, {}) for steps in LONG if name in LONG_RUNS)
    yield from (case for case in GIVEN if case.name == name)


# Levels of one's own: a run of as many steps.
GIVEN = (
    Case("CMStochasticIterativeScheduler", 2, {}, {"timesteps": [22, 0]}),
    Case("CMStochasticIterativeScheduler", 4, {}, {"timesteps": [39, 20, 10, 2]}),
    Case("LCMScheduler", 3, {}, {"timesteps": [999, 500, 0]}),
    Case("LCMScheduler", 1, {}, {"timesteps": [19]}),
    Case("TCDScheduler", 3, {}, {"timesteps": [999, 500, 0], "eta": 0.6}),
    Case("TCDScheduler", 2, {}, {"timesteps": [701, 23]}),
    Case("IPNDMScheduler", 3, {"trained_betas": [1.0, 0.9, 0.4, 0.0]}),
    Case("IPNDMScheduler", 5, {"trained_betas": [0.99, 0.6, 0.5, 0.2, 0.15, 0.1]}),
)
