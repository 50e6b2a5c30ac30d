"""`stack`: tables of equal length, converted to one structure and run by `vmap` in one program."""

import functools
from typing import Any

import jax
import numpy as np
import pytest

import ddpm_jax as dj
from tests.sampling.networks import PARAMS, SHAPE, denoise, denoise_learned

KEYS = dj.sample_keys(jax.random.key(3, impl="unsafe_rbg"), 2)  # compiles fastest

# A batched program rounds its multiply-adds in another order; the values are of order 1 to 100.
BATCHED = 2e-5


def sweep(network: Any, tables: list[dj.Table]) -> np.ndarray:
    """The samples of all tables, each from its own prior, in one mapped program."""
    stacked = dj.stack(tables)
    starts = np.stack([dj.prior(table, KEYS, SHAPE) for table in tables])
    run = functools.partial(dj.sample, network, PARAMS)
    return np.asarray(jax.jit(jax.vmap(run, in_axes=(0, 0, None)))(stacked, starts, KEYS))


STACKS = {
    "eta, and 0, without noise": [
        dj.DDIMScheduler().table(6, eta=eta) for eta in (0.0, 0.25, 0.5, 1.0)
    ],
    "clipped and not": [
        dj.DDIMScheduler(clip_sample=False).table(6),
        dj.DDIMScheduler(clip_sample_range=0.5).table(6),
        dj.EulerDiscreteScheduler().table(6),
    ],
    "thresholded and not": [
        dj.DDPMScheduler(clip_sample=False).table(6),
        dj.DDPMScheduler(thresholding=True, sample_max_value=2.0).table(6),
    ],
    # PLMS has five registers, Euler and DDPM have one; clipping and noise are added too.
    "numbers of registers": [
        dj.PNDMScheduler(skip_prk_steps=True).table(5),
        dj.EulerDiscreteScheduler(use_karras_sigmas=True).table(6),
        dj.DDPMScheduler().table(6),
    ],
    "learned and fixed variance": [
        dj.DDPMScheduler(variance_type="learned_range").table(6),
        dj.DDPMScheduler(variance_type="fixed_large").table(6),
        dj.DDIMScheduler().table(6),
    ],
}


@pytest.mark.parametrize("name", STACKS)
def test_each_table_runs_as_alone(name: str) -> None:
    tables, network = STACKS[name], denoise_learned if "learned" in name else denoise
    together = sweep(network, tables)
    assert together.shape == (len(tables), 2, *SHAPE)
    for table, reached in zip(tables, together, strict=True):
        alone = dj.sample(network, PARAMS, table, dj.prior(table, KEYS, SHAPE), KEYS)
        scale = max(1.0, float(np.abs(alone).max()))
        assert np.abs(reached - alone).max() <= BATCHED * scale


def test_one_program_for_the_sweep(count_compilations: Any) -> None:
    def network(params, x, timestep):
        return denoise(params, x, timestep)

    run = jax.jit(jax.vmap(functools.partial(dj.sample, network, PARAMS), in_axes=(0, 0, None)))
    stacks = [
        dj.stack([dj.DDIMScheduler().table(6, eta=eta) for eta in etas])
        for etas in ((0.0, 0.5), (0.2, 0.9))
    ]
    starts = np.stack([dj.prior(dj.DDIMScheduler().table(6), KEYS, SHAPE)] * 2)
    run(stacks[0], starts, KEYS)
    with count_compilations() as compiled:
        run(stacks[1], starts, KEYS)
        assert compiled.count == 0


def test_tables_that_cannot_be_stacked() -> None:
    ddim = dj.DDIMScheduler()
    with pytest.raises(ValueError, match="length"):
        dj.stack([ddim.table(6), ddim.table(7)])
    with pytest.raises(ValueError, match="DynamicThreshold"):
        dj.stack([ddim.table(6), dj.DDIMScheduler(thresholding=True).table(6)])
    with pytest.raises(ValueError, match="at least one"):
        dj.stack([])


def test_stack_of_equal_structures_only_adds_an_axis() -> None:
    tables = [dj.DDPMScheduler(clip_sample_range=limit).table(4) for limit in (1.0, 2.0)]
    stacked = dj.stack(tables)
    for name in ("timestep", "level", "in_scale", "mix", "to_x0", "noise_scale", "init_scale"):
        expected = np.stack([getattr(table, name) for table in tables])
        np.testing.assert_array_equal(getattr(stacked, name), expected)
    np.testing.assert_array_equal(stacked.refine.limit, [1, 2])
