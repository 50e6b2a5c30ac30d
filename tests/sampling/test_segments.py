"""The loop of the pipelines: segments, previews, compilations, Ctrl-C."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ddpm_jax as dj
from ddpm_jax.sampling import segments

TESTS = Path(__file__).parents[1]


def linear(params: jax.Array, x: jax.Array, timestep: jax.Array) -> jax.Array:
    """A network that compiles quickly."""
    return params * x + timestep / 1000


PARAMS = jnp.float32(0.3)
KEYS = dj.sample_keys(jax.random.key(0), 3)
TABLES = {
    "DDPM": dj.DDPMScheduler().table(20),
    "DDIM": dj.DDIMScheduler().table(20),
    "PNDM": dj.PNDMScheduler().table(8),
}


def start(table: dj.Table) -> jax.Array:
    return dj.prior(table, KEYS, (4, 4, 1))


@pytest.mark.parametrize("name", TABLES)
def test_bits_are_those_of_the_scan(name: str):
    table = TABLES[name]
    *_, last = segments.run(linear, PARAMS, table, start(table), KEYS)
    assert last.done == len(table)
    expected = dj.sample(linear, PARAMS, table, start(table), KEYS)
    np.testing.assert_array_equal(last.registers[0], expected)


@pytest.mark.parametrize("name", TABLES)
def test_preview_register_holds_the_history(name: str):
    table, every = TABLES[name], 5
    steps = list(
        segments.run(linear, PARAMS, segments.with_preview(table), start(table), KEYS, every=every)
    )
    wanted = [step for step in steps if step.done % every == 0 or step.done == len(table)]
    assert [step.done for step in wanted] == [*range(every, len(table), every), len(table)]
    x_0, previews = dj.sample_with_history(linear, PARAMS, table, start(table), KEYS, every=every)
    # Two programs of the same sums: XLA may fuse a multiply and an add in one and not the other.
    rounding = {"rtol": 1e-5, "atol": 1e-5}
    for step, preview in zip(wanted, previews, strict=True):
        np.testing.assert_allclose(step.registers[-1], preview, **rounding)
    np.testing.assert_allclose(steps[-1].registers[0], x_0, **rounding)


@pytest.mark.parametrize(
    ("rows", "seconds", "expected"),
    [
        (1, 5.0, 1),  # with a compilation, the shortest segment
        (1, 0.08, 2),  # the fewest rows that last as long as a segment
        (1, 0.04, 3),
        (10, 0.1, 10),
        (10, 0.2, 5),
        (1, 1e-4, 1000),  # the first row is enough for an estimate
        (100, 30.0, 1),
        (10, 0.0, 10**9),
    ],
)
def test_segment_has_the_fewest_rows_that_last_a_tenth_of_a_second(
    rows: int, seconds: float, expected: int
):
    assert segments.segment_length(rows, seconds) == expected


def test_segments_last_about_a_tenth_of_a_second():
    """A network of known cost: 20 ms per evaluation give 5 rows per segment."""

    def wait(x: Any) -> Any:
        time.sleep(0.02)
        return x

    def slow(params: None, x: jax.Array, timestep: jax.Array) -> jax.Array:
        return jax.pure_callback(wait, jax.ShapeDtypeStruct(x.shape, x.dtype), x)

    table = dj.DDIMScheduler().table(60)
    done = [step.done for step in segments.run(slow, None, table, start(table), None)]
    lengths = np.diff(done)
    # On a busy machine a row is slower and a segment has fewer rows, never more.
    assert 2 <= np.median(lengths) <= 5


def test_interrupt_stops_within_half_a_second():
    """A run of several seconds gets SIGINT in the middle and prints when it stopped."""
    program = """
import signal, time, jax, ddpm_jax as dj
signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs inherit "ignore"
from pipelines.models import pipeline
pipe = pipeline(dj.DDPMPipeline)
pipe(jax.random.key(0), batch_size=512, num_inference_steps=2, progress=False)
print("running", flush=True)
try:
    while True:
        pipe(jax.random.key(0), batch_size=512, num_inference_steps=1000, progress=False)
except KeyboardInterrupt:
    print(time.time(), flush=True)
"""
    command = [sys.executable, "-c", program]
    env = {**os.environ, "PYTHONPATH": f"{TESTS.parent}:{TESTS}"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "running\n"
        time.sleep(1.0)
        sent = time.time()
        child.send_signal(signal.SIGINT)
        stopped = float(child.stdout.readline())
    assert child.returncode == 0
    assert stopped - sent < 0.5
