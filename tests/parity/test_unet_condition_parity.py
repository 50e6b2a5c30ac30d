"""UNet2DConditionModel against diffusers', on random weights, in float32 and in float64."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpm_jax.models import UNet2DConditionModel
from tests.parity import torch_unet
from tests.parity.pairs import Case, cases
from weights_convert import to_flax

# Largest difference over the output's standard deviation. Two real faults of other ports are near:
# an eps of 1e-5 in the transformers' norms (6e-5), and the tanh form of gelu (2e-4).
FLOAT32 = 2e-5
FLOAT64 = 1e-9

FACTORS: dict[str, list[Any]] = {
    "in_channels": [4, 5, 9],
    "out_channels": [4, 3],
    "center_input_sample": [False, True],
    "freq_shift": [0, 1],
    "flip_sin_to_cos": [True, False],
    "block_out_channels": [(8, 16), (16, 8)],
    "down": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up": ["CrossAttnUpBlock2D", "UpBlock2D"],
    "only_cross_attention": [False, True, "list"],
    "layers_per_block": [1, 2, "list"],
    "transformer_layers_per_block": [1, 2, "list"],
    "attention_head_dim": [2, 3, "list"],
    "use_linear_projection": [False, True],
    "upcast_attention": [False, True],
    "downsample_padding": [1, 0],
    "mid_block_scale_factor": [1, 1.7],
    "dropout": [0.0, 0.3],
    "act_fn": ["silu", "mish", "gelu", "relu"],
    "norm_num_groups": [4, 2],
    "norm_eps": [1e-5, 1e-2],
    "cross_attention_dim": [6, 16],
    "tokens": [1, 77],
    "batch": [1, 2],
    "scalar_timestep": [False, True],
    "sides": [(8, 8), (7, 13), (16, 8)],
}
CALL = ("down", "up", "tokens", "batch", "scalar_timestep", "sides")
LISTS = {
    "only_cross_attention": (True, False),
    "layers_per_block": (1, 2),
    "transformer_layers_per_block": (2, 1),
    "attention_head_dim": (2, 4),
}
CASES = cases(FACTORS)


def config_of(case: Case) -> dict[str, Any]:
    """The config of a case: blocks of the type that it names, and of the other one."""
    config = {name: value for name, value in case.items() if name not in CALL}
    for name, values in LISTS.items():
        if config[name] == "list":
            config[name] = values
    for way in ("down", "up"):
        others = (kind for kind in FACTORS[way] if kind != case[way])
        config[f"{way}_block_types"] = (case[way], *others)
    if case["sides"] == (7, 13):
        config["downsample_padding"] = 1  # diffusers itself fails at odd sizes with 0
    return config


def inputs_of(case: Case, dtype: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng, batch = np.random.default_rng(0), case["batch"]
    x = rng.standard_normal((batch, *case["sides"], case["in_channels"]))
    context = rng.standard_normal((batch, case["tokens"], case["cross_attention_dim"]))
    timestep = rng.uniform(0, 1000, () if case["scalar_timestep"] else (batch,))
    return x.astype(dtype), timestep.astype(np.float32), context.astype(dtype)


def difference(config: dict[str, Any], dtype: str, inputs: Any) -> float:
    """The largest, over the output's standard deviation."""
    peer = torch_unet.make(config, kind=torch_unet.ConditionalTorchUNet)
    peer = peer.double() if dtype == "float64" else peer
    model = UNet2DConditionModel(**config, dtype=dtype, param_dtype=dtype)
    theirs = torch_unet.call_conditional(peer, *inputs)
    params = to_flax(
        torch_unet.tensors(peer), model.shapes(), put=lambda path, array: jax.device_put(array)
    )
    del peer  # of full width both are large
    ours = jax.jit(model.apply)({"params": params}, *inputs)
    assert ours.shape == theirs.shape
    assert ours.dtype == dtype
    return float(np.abs(ours - theirs).max() / theirs.std())


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_every_pair_of_options(case: Case):
    assert difference(config_of(case), "float32", inputs_of(case, np.float32)) <= FLOAT32


@pytest.mark.parametrize("case", CASES[:3], ids=range(3))
def test_in_float64(case: Case):
    """At timestep 0, whose sines are exact: both compute the others in float32."""
    jax.config.update("jax_enable_x64", True)
    try:
        x, _, context = inputs_of(case, np.float64)
        assert difference(config_of(case), "float64", (x, np.float32(0), context)) <= FLOAT64
    finally:
        jax.config.update("jax_enable_x64", False)


def test_small_activations_show_the_eps_of_every_norm():
    config = config_of(CASES[0])
    x, timestep, context = inputs_of(CASES[0], np.float32)
    assert difference(config, "float32", (1e-3 * x, timestep, context)) <= FLOAT32


def test_the_topology_of_stable_diffusion():
    widths = {"block_out_channels": (8, 8, 16, 16), "norm_num_groups": 4, "attention_head_dim": 2}
    _, timestep, context = inputs_of(CASES[0], np.float32)
    x = np.random.default_rng(0).standard_normal((len(context), 16, 16, 4)).astype(np.float32)
    config = widths | {"cross_attention_dim": context.shape[-1]}
    assert difference(config, "float32", (x, timestep, context)) <= FLOAT32


@pytest.mark.slow  # 8 GB and minutes; fast: the same with tiny widths
def test_the_full_width_of_stable_diffusion():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 16, 16, 4)).astype(np.float32)
    context = rng.standard_normal((1, 77, 768)).astype(np.float32)
    config = {"cross_attention_dim": 768}
    assert difference(config, "float32", (x, jnp.float32(981), context)) <= FLOAT32
