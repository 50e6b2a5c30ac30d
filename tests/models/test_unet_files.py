"""UNet2DModel loaded from folders and saved."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from ddpm_jax.models import UNet2DModel
from tests.models.nets import TINY, params_of

MODEL = UNet2DModel(**TINY, sample_size=(8, 16))


@pytest.fixture(scope="module")
def params():
    return params_of(MODEL)


@pytest.fixture
def saved(tmp_path: Path, params) -> Path:
    MODEL.save_pretrained(tmp_path / "unet", params)
    return tmp_path / "unet"


def test_round_trip_bit_for_bit(saved: Path, params):
    """From its own folder, and from the pipeline's."""
    for folder, options in ((saved, {}), (saved.parent, {}), (saved.parent, {"subfolder": "unet"})):
        model, back = UNet2DModel.from_pretrained(folder, **options)
        assert model == MODEL
        jax.tree.map(np.testing.assert_array_equal, back, params)
        assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(back))


def test_the_config_file_is_diffusers(saved: Path):
    config = json.loads((saved / "config.json").read_text())
    assert config.pop("_class_name") == "UNet2DModel"
    assert config == json.loads(json.dumps(dict(MODEL.config)))


def test_dtypes(saved: Path, params):
    model, back = UNet2DModel.from_pretrained(saved, dtype=jnp.bfloat16, param_dtype=jnp.float16)
    assert (model.dtype, model.param_dtype) == (jnp.bfloat16, jnp.float16)
    assert {leaf.dtype for leaf in jax.tree.leaves(back)} == {jnp.dtype("float16")}
    stored = params["conv_in"]["kernel"].astype(jnp.float16)
    np.testing.assert_array_equal(back["conv_in"]["kernel"], stored)


def test_params_are_float32_for_every_stored_dtype(tmp_path: Path, params):
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.float16), params)
    MODEL.save_pretrained(tmp_path, half, variant="fp16")
    assert (tmp_path / "diffusion_pytorch_model.fp16.safetensors").exists()
    _, back = UNet2DModel.from_pretrained(tmp_path, variant="fp16")
    assert {leaf.dtype for leaf in jax.tree.leaves(back)} == {jnp.dtype("float32")}
    with pytest.raises(FileNotFoundError):
        UNet2DModel.from_pretrained(tmp_path)


def test_params_follow_the_sharding(saved: Path):
    mesh = jax.make_mesh((1,), ("model",), axis_types=(jax.sharding.AxisType.Auto,))
    everywhere = NamedSharding(mesh, PartitionSpec())
    by_feature = NamedSharding(mesh, PartitionSpec(None, None, None, "model"))
    _, one = UNet2DModel.from_pretrained(saved, sharding=everywhere)
    assert {leaf.sharding for leaf in jax.tree.leaves(one)} == {everywhere}
    _, each = UNet2DModel.from_pretrained(
        saved, sharding=lambda path, shape: by_feature if len(shape) == 4 else everywhere
    )
    assert each["conv_in"]["kernel"].sharding == by_feature
    assert each["conv_in"]["bias"].sharding == everywhere


def test_weights_that_do_not_match_their_config(saved: Path):
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps(config | {"block_out_channels": [8, 24]}))
    with pytest.raises(ValueError, match=r"does not match its config\.json") as caught:
        UNet2DModel.from_pretrained(saved)
    assert "down_blocks.1.attentions.0.to_v.bias is (16,), expected (24,)" in str(caught.value)
    assert str(caught.value).endswith(" more")


def test_params_of_another_model_are_not_written(tmp_path: Path, params):
    other = {**params, "conv_out": params["conv_in"]}
    del other["conv_norm_out"]
    with pytest.raises(ValueError, match="not the params of this model") as caught:
        MODEL.save_pretrained(tmp_path / "unet", other)
    assert "conv_out" in str(caught.value)
    assert "conv_norm_out" in str(caught.value)
    assert not (tmp_path / "unet").exists()
