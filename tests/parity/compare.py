"""One case of `scheduler_cases`, run by both libraries with the same network and noise."""

import dataclasses
from typing import Any

import numpy as np

import ddpm_jax as dj
from tests.parity import peers
from tests.parity.scheduler_cases import Case, network_of, noise_of
from tests.schedulers.propagate import propagate

# float64 on both sides, relative to the sample. Measured at most 8e-14 but for these two: a
# thousand steps add up rounding (2.5e-12), and on cosine grids the first alpha is 5e-5 (7e-12).
LIFTED, AMPLIFIED = 1e-12, 2e-11
# In random cases, times of `rounding`: measured at most 1.4 where the difference is above 5e-13.
PLACES = 10
EPS = 2.0**-52

# What the network is told is float32 in every table; diffusers inverts sigma(t) in float32.
TOLD = {np.float64: 1e-6, np.float32: 1e-2}


def allowed(case: Case, table: Any = None, samples: Any = None) -> float:
    """The largest difference of the two libraries in float64 that is rounding, of `cases_of`."""
    cosine = case.config.get("beta_schedule") == "squaredcos_cap_v2"
    return AMPLIFIED if case.steps == 1000 or cosine else LIFTED


def table_of(case: Case, dtype: Any = np.float64) -> Any:
    steps = None if "timesteps" in case.call else case.steps
    return getattr(dj, case.name)(**case.config).table(steps, dtype=dtype, **case.call)


def ours(case: Case, table: Any) -> list[np.ndarray]:
    """The sample after each row of a table."""
    z, *noise = noise_of(case)
    return propagate(table, network_of(case), float(table.init_scale) * z, noise)


def rounding(case: Case, table: Any, samples: list[np.ndarray]) -> float:
    """How far the samples move, relative, if each row rounds x and x0 = (x - sigma eps) / alpha.

    x0 is a small difference of large numbers where sigma is large, and a slope (x - x0) / sigma
    makes more of both errors where sigma is small.
    """
    network, (z, *noise) = network_of(case), noise_of(case)
    start = float(table.init_scale) * z
    errors = EPS * np.array([np.abs(x).max() for x in (start, *samples[:-1])])
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (2, len(table), *z.shape))
    alpha = np.asarray(table.level, np.float64)[:, 0]
    read = np.abs(table.to_x0[:, 1])
    read = np.where(read > 0, read, np.inf)  # a run up begins at the data, where x0 is x
    of_output = errors / np.where(alpha > 0, alpha, 1.0) / read

    def nudged(x: np.ndarray, i: int) -> np.ndarray:
        output = network(x, i)
        output[..., : z.shape[-1]] += of_output[i] * signs[0, i]
        return output

    plain = np.zeros(len(table)) if table.noise_scale is None else table.noise_scale
    scale = np.where(plain > 0, plain, errors)  # rows without noise get some
    drawn = [
        (noise[i] if plain[i] > 0 else 0.0) + errors[i] / scale[i] * signs[1, i]
        for i in range(len(table))
    ]
    moved = propagate(dataclasses.replace(table, noise_scale=scale), nudged, start, drawn)
    return float(np.max([relative(a, b) for a, b in zip(moved, samples, strict=True)]))


def allowed_in(case: Case, table: Any, samples: list[np.ndarray]) -> float:
    """The largest difference of the two libraries that is rounding, for any case."""
    return max(LIFTED, PLACES * rounding(case, table, samples))


def theirs(
    case: Case, init_scale: float, dtype: Any = np.float64, alpha_bar: np.ndarray | None = None
) -> peers.Run:
    """diffusers' run from noise of a standard deviation."""
    network, (z, *noise) = network_of(case), noise_of(case)
    return peers.peer(
        case,
        lambda sample, i: network(sample.astype(np.float64), i).astype(dtype),
        (init_scale * z).astype(dtype),
        [draw.astype(dtype) for draw in noise],
        alpha_bar,
    )


def alpha_bar_of(case: Case) -> np.ndarray | None:
    schedule = getattr(getattr(dj, case.name)(**case.config), "noise_schedule", None)
    return schedule.alpha_bar if schedule else None


def deviation(
    case: Case, table: Any, samples: list[np.ndarray], run: peers.Run, dtype: Any = np.float64
) -> float:
    """The largest relative difference of a sample along the path; checks what else there is."""
    assert len(samples) == len(run.samples)
    np.testing.assert_allclose(table.timestep, run.timesteps, rtol=1e-6, atol=TOLD[dtype])
    if not case.call:
        np.testing.assert_allclose(table.init_scale, run.init_scale, rtol=1e-6)
    pairs = zip(samples, run.samples, strict=True)
    return float(np.max([relative(a, b) for a, b in pairs]))  # NaN if one is


def relative(a: np.ndarray, b: np.ndarray) -> float:
    """The largest difference of a from b, in units of the largest of b."""
    largest = float(np.abs(b).max())
    return float(np.abs(a - b).max()) / largest if largest else float(np.any(a != b))


def shipped(case: Case) -> float | None:
    """`deviation` of a case that both libraries take; None if theirs is not finite in float32."""
    table = table_of(case)
    run = theirs(case, float(table.init_scale), np.float32)
    finite = np.all(np.isfinite(run.samples))
    return deviation(case, table, ours(case, table), run, np.float32) if finite else None
