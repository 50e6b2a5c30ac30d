"""UNet2DConditionModel: sizes, precision, its config, and what it refuses."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpm_jax.models import UNet2DConditionModel, UNet2DModel
from tests.models.nets import params_of

TINY: dict[str, Any] = {
    "block_out_channels": (8, 16),
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "cross_attention_dim": 6,
    "attention_head_dim": 2,
}
MODEL = UNet2DConditionModel(**TINY)
SD2 = {"cross_attention_dim": 1024, "attention_head_dim": (5, 10, 20, 20)} | {
    "use_linear_projection": True
}
evaluate = jax.jit(MODEL.apply)


def inputs(sides: tuple[int, int] = (8, 8), tokens: int = 5, scale: float = 1.0) -> Any:
    rng = np.random.default_rng(0)
    x = scale * rng.standard_normal((2, *sides, 4)).astype(np.float32)
    return x, 999.0, rng.standard_normal((2, tokens, 6)).astype(np.float32)


@pytest.mark.parametrize(
    ("config", "count"),
    [
        pytest.param({"cross_attention_dim": 768}, 859_520_964, id="1.x"),
        pytest.param(SD2, 865_910_724, id="2.x"),
        *(
            # fast: the two without more channels
            pytest.param(config | {"in_channels": channels}, count, id=name, marks=pytest.mark.slow)
            for config, channels, count, name in (
                ({"cross_attention_dim": 768}, 9, 859_535_364, "1.x inpainting"),
                ({"cross_attention_dim": 768}, 8, 859_532_484, "instruct-pix2pix"),
                (SD2, 9, 865_925_124, "2.x inpainting"),
                (SD2, 5, 865_913_604, "2.x depth"),
            )
        ),
    ],
)
def test_the_sizes_of_stable_diffusion(config: dict[str, Any], count: int):
    leaves = jax.tree.leaves(UNet2DConditionModel(**config).shapes())
    assert sum(leaf.size for leaf in leaves) == count
    assert len(leaves) == 686


@pytest.mark.parametrize("sides", [(8, 8), (5, 9), (1, 2)])
@pytest.mark.parametrize("tokens", [1, 154])
def test_any_size_and_any_length_of_context(sides: tuple[int, int], tokens: int):
    shapes = {"params": MODEL.shapes()}
    output = jax.eval_shape(MODEL.apply, shapes, *inputs(sides, tokens))
    assert output.shape == (2, *sides, 4)
    assert output.dtype == jnp.float32


def test_denoise_is_apply():
    shapes, given = MODEL.shapes(), inputs()
    ours, theirs = (
        jax.make_jaxpr(call)(params, *given)
        for call, params in ((MODEL.denoise, shapes), (MODEL.apply, {"params": shapes}))
    )
    assert str(ours) == str(theirs)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_with_large_activations(dtype: str):
    """At timestep 999, with logits far beyond float16's largest number: Stable Diffusion 2.1."""
    params = params_of(MODEL)
    for path in (("down_blocks.0", "attentions.0"), ("mid_block", "attentions.0")):
        block = params[path[0]][path[1]]["transformer_blocks.0"]
        for name in ("to_q", "to_k"):
            block["attn1"][name]["kernel"] = 300 * block["attn1"][name]["kernel"]
    half = MODEL.clone(dtype=jnp.dtype(dtype))
    exact = evaluate({"params": params}, *inputs())
    ours = jax.jit(half.apply)({"params": params}, *inputs())
    assert ours.dtype == jnp.float32
    assert np.isfinite(ours).all()
    assert np.abs(ours - exact).mean() < 0.2 * exact.std()


@pytest.mark.slow  # fast: the same of UNet2DModel
def test_gradients_with_remat_are_the_same():
    params, given = params_of(MODEL), inputs()

    def loss(model: UNet2DConditionModel) -> Any:
        return lambda p: jnp.square(model.apply({"params": p}, *given)).mean()

    plain, again = (
        jax.jit(jax.grad(loss(model)))(params) for model in (MODEL, MODEL.clone(remat=True))
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), plain, again)


def test_files(tmp_path: Path):
    params = params_of(MODEL)
    MODEL.save_pretrained(tmp_path, params)
    model, read = UNet2DConditionModel.from_pretrained(tmp_path)
    assert model == MODEL
    jax.tree.map(np.testing.assert_array_equal, read, params)
    with pytest.raises(ValueError, match="config of a UNet2DConditionModel, not of a UNet2DModel"):
        UNet2DModel.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("version", "size", "read"),
    [("0.6.0", 32, 64), ("0.8.1", 96, 96), ("0.9.0", 32, 32), ("0.35.0", 8, 8), (None, 8, 8)],
)
def test_sizes_of_early_files(version: str | None, size: int, read: int):
    """Before 0.9 the field had no meaning, and the first fine-tunes say 32."""
    config = TINY | {"sample_size": size} | ({"_diffusers_version": version} if version else {})
    assert UNet2DConditionModel.from_config(config).sample_size == read


def test_fields_that_stable_diffusion_leaves_at_their_defaults():
    """Absent or at the default, as files written today have them; other values are named."""
    listed = {"class_embed_type": None, "conv_in_kernel": 3, "resnet_out_scale_factor": 1.0}
    assert UNet2DConditionModel.from_config(TINY | listed) == MODEL
    with pytest.raises(ValueError, match=r"not supported: addition_embed_type='text_time' \(None"):
        UNet2DConditionModel.from_config(TINY | {"addition_embed_type": "text_time"})


@pytest.mark.usefixtures("as_users_run")
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mid_block_type": None}, "mid_block_type must be 'UNetMidBlock2DCrossAttn', got None"),
        ({"down_block_types": ("AttnDownBlock2D", "DownBlock2D")}, "'AttnDownBlock2D', which is"),
        ({"attention_head_dim": (2, 2, 2)}, "an entry for each of 2 blocks, got 3"),
        ({"attention_head_dim": 9}, "9, the number of heads, exceeds 8 channels"),
        ({"layers_per_block": 0}, "layers_per_block must be positive integers, got 0"),
        ({"only_cross_attention": (1, 0)}, "only_cross_attention must be true or false"),
        ({"cross_attention_dim": (6, 6)}, "cross_attention_dim must be a positive integer"),
        ({"norm_num_groups": 3}, "norm_num_groups 3 does not divide all"),
        ({"dtype": "float64"}, "dtype must be 'float32', 'bfloat16' or 'float16'"),
    ],
)
def test_faults_of_a_config(fields: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        UNet2DConditionModel(**TINY | fields)


@pytest.mark.usefixtures("as_users_run")
def test_faults_of_inputs():
    x, timestep, context = inputs()
    for given, message in (
        ((x[..., :3], timestep, context), r"x must be \(batch, height, width, 4\)"),
        ((x, np.zeros(3), context), r"timestep must be a scalar or of shape \(2,\)"),
        ((x, timestep, context[:1]), r"context must be of shape \(2, tokens, 6\), got .*1, 5, 6"),
        ((x, timestep, context[..., :5]), "context must be of shape"),
        ((x, timestep, context[:, :0]), "context must be of shape"),
        ((x[0], timestep, context), "channels last"),
    ):
        with pytest.raises(ValueError, match=message):
            MODEL.apply({"params": params_of(MODEL)}, *given)
    with pytest.raises(TypeError, match="a model has no params"):
        MODEL(x, timestep, context)
