"""Compilations: tables of one structure share a program."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ddpm_jax as dj
from tests.sampling.networks import PARAMS, SHAPE, denoise

KEYS = dj.sample_keys(jax.random.key(2, impl="unsafe_rbg"), 2)  # compiles fastest

SHARED: dict[str, tuple[dj.Table, ...]] = {
    "noise, clipped": (
        dj.DDIMScheduler().table(6, eta=0.3),
        dj.DDIMScheduler().table(6, eta=0.7),
        dj.DDPMScheduler().table(6),
        dj.DDPMScheduler(timestep_spacing="trailing", prediction_type="v_prediction").table(6),
        dj.DDPMScheduler(beta_schedule="squaredcos_cap_v2", variance_type="fixed_large").table(6),
    ),
    "clipped": (
        dj.DDIMScheduler().table(6),
        dj.DDIMScheduler(clip_sample_range=2.0).table(6),
        dj.DDIMScheduler().table(6, use_clipped_model_output=True),
    ),
    "neither": (
        dj.DDIMScheduler(clip_sample=False).table(6),
        dj.EulerDiscreteScheduler().table(6),
        dj.EulerDiscreteScheduler(use_karras_sigmas=True).table(6),
        dj.EulerDiscreteScheduler(final_sigmas_type="sigma_min").table(6),
    ),
    "thresholds": tuple(
        dj.DDIMScheduler(thresholding=True, sample_max_value=top).table(6) for top in (1.5, 3.0)
    ),
}


def new_network() -> Callable[..., Any]:
    """A network that no earlier test has compiled."""
    return lambda params, x, timestep: denoise(params, x, timestep)


@pytest.mark.parametrize("name", SHARED)
def test_tables_that_share_a_compilation(name: str, count_compilations: Any) -> None:
    network = new_network()
    first, *others = SHARED[name]
    starts = [dj.prior(table, KEYS, SHAPE) for table in (first, *others)]
    with count_compilations() as compiled:
        reached = [dj.sample(network, PARAMS, first, starts[0], KEYS)]
        assert compiled.count >= 1
    with count_compilations() as compiled:
        for table, x_T in zip(others, starts[1:], strict=True):
            reached.append(dj.sample(network, PARAMS, table, x_T, KEYS))
        assert compiled.count == 0
    for other in reached[1:]:  # one program, other numbers
        assert not np.array_equal(reached[0], other)


def test_tables_that_do_not_share_a_compilation(count_compilations: Any) -> None:
    """The test above can fail: another structure compiles."""
    network = new_network()
    tables = (
        dj.DDIMScheduler().table(6),
        dj.DDIMScheduler().table(6, eta=0.5),
        dj.DDIMScheduler(clip_sample=False).table(6),
        dj.DDIMScheduler().table(7),
    )
    for table in tables:
        x_T = dj.prior(table, KEYS, SHAPE)
        with count_compilations() as compiled:
            dj.sample(network, PARAMS, table, x_T, KEYS)
            assert compiled.count >= 1


def test_deterministic_tables_draw_nothing() -> None:
    """No key, no random bits in the program; the stochastic one has them."""

    def text(table: dj.Table, keys: Any) -> str:
        run = jax.jit(lambda x, k: dj.sample(denoise, PARAMS, table, x, k))
        return run.lower(jnp.zeros((2, *SHAPE)), keys).as_text()

    assert "rng" not in text(dj.DDIMScheduler().table(4), None)
    assert "rng" in text(dj.DDIMScheduler().table(4, eta=0.1), KEYS)


def test_device_code_has_no_branches() -> None:
    """No cond and no select between methods in the body of any scheduler's loop."""
    for scheduler in (
        dj.DDPMScheduler(clip_sample=False),
        dj.DDIMScheduler(clip_sample=False),
        dj.PNDMScheduler(),
        dj.PNDMScheduler(skip_prk_steps=True),
        dj.EulerDiscreteScheduler(use_karras_sigmas=True),
        dj.EulerAncestralDiscreteScheduler(),
    ):
        row = scheduler.table(10).row(4)
        x = jnp.zeros((1, *SHAPE))
        registers = (x,) * row.mix.shape[0]
        found = str(jax.make_jaxpr(lambda *a: dj.step(*a))(row, registers, x, x))
        for primitive in ("cond[", "select_n", "switch", "while["):
            assert primitive not in found, (scheduler, primitive)
