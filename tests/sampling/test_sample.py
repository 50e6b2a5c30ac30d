"""`sample`, `advance` and `sample_with_history` over every scheduler and every structure of tables.

What is compiled depends on a table's structure alone, so one table of each is run; tests/schedulers
has the numbers of all. Keys are of the generator that compiles fastest: only loops are compared.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pipelines.models import tiny

import ddpm_jax as dj
from tests.sampling.networks import PARAMS, SHAPE, denoise, denoise_learned
from tests.schedulers.matrix import CASES, FAMILIES, Family

KEYS = dj.sample_keys(jax.random.key(1, impl="unsafe_rbg"), 2)
STEPS, LENGTH = 5, 16

# A scan compiled as one program fuses multiply-adds that single operations round one by one; the
# first steps divide by alpha (0.006; 5e-5 on cosine grids): relative to the path's largest value.
FUSED = 2e-5


@pytest.fixture(scope="module")
def seen() -> set[Any]:
    """The structures that were run."""
    return set()


def runs_of(family: Family, seen: set[Any]) -> Iterator[tuple[Any, dj.Table, jax.Array]]:
    """(network, table, x_T) for the scheduler's first table of each structure, unless another
    scheduler's was run.
    """
    for case in CASES:
        if case.family is not family:
            continue
        for call in (*case.deterministic[:1], *case.stochastic[:1]):
            table = case.scheduler.table(STEPS, **call)
            structure = (jax.tree.structure(table), *(x.shape[1:] for x in jax.tree.leaves(table)))
            if structure not in seen:
                seen.add(structure)
                network = denoise if table.log_var is None else denoise_learned
                yield network, table, dj.prior(table, KEYS, SHAPE)


def by_hand(network: Any, table: dj.Table, x_T: jax.Array) -> tuple[list[Any], list[Any]]:
    """Register 0 and the predicted x0 after each row, one operation at a time."""
    registers, samples, predicted = table.init(x_T), [], []
    for i, row in enumerate(table):
        output = network(PARAMS, row.in_scale * registers[0], jnp.asarray(row.timestep))
        drawn = None if row.noise_scale is None else dj.noise(KEYS, i, SHAPE)
        predicted.append(dj.predict_x0(row, registers, output))
        registers = dj.step(row, registers, output, drawn)
        samples.append(registers[0])
    return samples, predicted


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_compiled_or_not(family: Family, seen: set[Any]) -> None:
    """The compiled scan and the same operations one by one; the padding's rows change nothing.
    `advance` has the scan's bits, whole and in segments that stop before the padding.
    """
    for network, table, x_T in runs_of(family, seen):
        padded = dj.pad(table, LENGTH)
        compiled = np.asarray(dj.sample(network, PARAMS, padded, x_T, KEYS))
        samples, _ = by_hand(network, table, x_T)
        scale = max(float(jnp.abs(x).max()) for x in (x_T, *samples))
        assert np.isfinite(compiled).all()
        assert np.abs(compiled - samples[-1]).max() <= FUSED * scale
        for cuts in ((0, len(table)), (0, 1, 2, len(table)), (0, LENGTH)):
            registers = padded.init(x_T)
            for start, stop in pairwise(cuts):
                registers = dj.advance(network, PARAMS, padded, registers, KEYS, start, stop)
            np.testing.assert_array_equal(registers[0], compiled)


class Sampler:
    """A function of a user's own, with a method that has nothing to do with ours."""

    def __call__(self, params: Any, x: jax.Array, timestep: jax.Array) -> jax.Array:
        return params * x

    def denoise(self) -> None: ...


def test_other_callables_may_have_a_method_of_that_name() -> None:
    images = jnp.ones((1, 2, 2, 1))
    found = dj.sample(Sampler(), jnp.float32(0.1), dj.DDIMScheduler().table(2), images)
    assert found.shape == images.shape


def test_a_model_is_sampled_by_its_method() -> None:
    model, params = tiny()
    table = dj.DDIMScheduler().table(2)
    x_T = dj.prior(table, KEYS, (8, 8, 1))
    with pytest.raises(TypeError, match=r"got a UNet2DModel\.apply: pass its method denoise"):
        dj.sample(model.apply, params, table, x_T)
    with pytest.raises(TypeError, match="got a UNet2DModel: pass its method denoise"):
        dj.sample(model, params, table, x_T)
    x_0 = dj.sample(model.denoise, params, table, x_T)
    with pytest.raises(ValueError, match=r"pass \(x / 2 \+ 0.5\)"):
        dj.make_grid(x_0)


def test_padded_lengths() -> None:
    table = dj.DDPMScheduler(variance_type="learned").table(5)
    assert len(dj.pad(table)) == 1024
    assert len(dj.pad(dj.DDIMScheduler().table(1000))) == 1024
    assert len(dj.pad(dj.PNDMScheduler().table(1000))) == 1024
    assert len(dj.pad(dj.pad(table, 1024))) == 1024
    assert len(dj.pad(dj.pad(table, 1025))) == 2048
    assert len(dj.pad(table, 5)) == 5
    with pytest.raises(ValueError, match="pad"):
        dj.pad(table, 4)


RUNS = {
    "DDPM learned": dj.DDPMScheduler(variance_type="learned_range"),
    "DDIM thresholding": dj.DDIMScheduler(thresholding=True, sample_max_value=2.0),
    "PNDM": dj.PNDMScheduler(),
    "Euler": dj.EulerDiscreteScheduler(),
}


@pytest.mark.parametrize(
    ("name", "every"), [("DDPM learned", 3), ("DDIM thresholding", 1), ("PNDM", 100), ("Euler", 7)]
)
def test_history(name: str, every: int) -> None:
    """Previews after rows every - 1, 2 every - 1, ... and the last; ceil(n / every) of them."""
    table = RUNS[name].table(7)
    network = denoise if table.log_var is None else denoise_learned
    x_T = dj.prior(table, KEYS, SHAPE)
    n = len(table)
    reached, previews = dj.sample_with_history(network, PARAMS, table, x_T, KEYS, every=every)
    assert previews.shape == (-(-n // every), 2, *SHAPE)
    samples, predicted = by_hand(network, table, x_T)
    rows = [min(i + every, n) - 1 for i in range(0, n, every)]
    scale = max(float(jnp.abs(x).max()) for x in (x_T, *samples, *predicted))
    for preview, row in zip(previews, rows, strict=True):
        assert float(jnp.abs(preview - predicted[row]).max()) <= FUSED * scale
    assert float(jnp.abs(reached - samples[-1]).max()) <= FUSED * scale


@pytest.mark.parametrize(
    ("kind", "dtype"), [(dj.DDIMScheduler, jnp.bfloat16), (dj.PNDMScheduler, jnp.float16)]
)
def test_half_precision_samples_stay_in_their_dtype(kind: Any, dtype: Any) -> None:
    table = kind(prediction_type="v_prediction").table(5)
    x_T = dj.prior(table, KEYS, SHAPE)
    half = dj.sample(denoise, PARAMS, table, x_T.astype(dtype), KEYS)
    assert half.dtype == dtype
    full = dj.sample(denoise, PARAMS, table, x_T, KEYS)
    # eight bits of mantissa, five steps
    np.testing.assert_allclose(half.astype(jnp.float32), full, atol=0.1)
