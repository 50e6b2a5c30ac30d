"""The config of UNet2DModel: accepted values, and a message for every fault."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import pytest

from ddpm_jax.models import UNet2DModel
from tests.models.nets import TINY
from weights_convert.names import OLD_UNET_FIELDS as RENAMED

pytestmark = pytest.mark.usefixtures("as_users_run")


def test_config_has_every_field_and_its_default():
    config = UNet2DModel(**TINY).config
    assert config.norm_num_groups == 4
    assert config["attention_head_dim"] == 8
    assert len(config) == 28
    assert UNet2DModel.from_config(config) == UNet2DModel(**TINY)


def test_lists_become_tuples_so_that_a_model_is_hashable():
    lists = {name: list(v) if isinstance(v, tuple) else v for name, v in TINY.items()}
    model = UNet2DModel.from_config({**lists, "sample_size": [8, 16]})
    assert model.sample_size == (8, 16)
    assert hash(model) == hash(UNet2DModel(**TINY, sample_size=(8, 16)))


def test_private_keys_are_skipped_and_overrides_taken():
    model = UNet2DModel.from_config({"_class_name": "UNet2DModel", **TINY}, dtype=jnp.bfloat16)
    assert model == UNet2DModel(**TINY, dtype=jnp.bfloat16)


def test_old_names():
    new = {**TINY, "sample_size": 8, "freq_shift": 1, "act_fn": "mish", "norm_eps": 1e-4}
    new |= {"attention_head_dim": 4}
    old_names = {new_name: old for old, new_name in RENAMED.items()}
    old = {old_names.get(name, name): value for name, value in new.items()}
    assert set(old) & set(RENAMED) == set(RENAMED)
    assert UNet2DModel.from_config(old) == UNet2DModel(**new)


def test_unknown_keys_are_named_and_ignored():
    with pytest.warns(UserWarning, match="no field cross_attention_dim, sampl_size: ignored"):
        model = UNet2DModel.from_config({**TINY, "sampl_size": 8, "cross_attention_dim": 1})
    assert model == UNet2DModel(**TINY)


def test_both_names_of_one_field():
    with pytest.raises(ValueError, match="image_size and sample_size"):
        UNet2DModel.from_config({**TINY, "sample_size": 8, "image_size": 8})


FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"sample_size": 0}, "sample_size must be a positive integer"),
    ({"sample_size": (8, 8, 8)}, "sample_size must be"),
    ({"in_channels": 0}, "in_channels must be a positive integer, got 0"),
    ({"out_channels": 2.0}, "out_channels must be a positive integer"),
    ({"center_input_sample": 1}, "center_input_sample must be true or false"),
    ({"time_embedding_type": "sine"}, "must be 'positional', 'fourier' or 'learned', got 'sine'"),
    ({"time_embedding_dim": -1}, "time_embedding_dim must be a positive integer or None"),
    ({"freq_shift": "1"}, "freq_shift must be a number"),
    ({"freq_shift": 4}, "freq_shift 4 makes the time embedding's frequencies infinite"),
    ({"flip_sin_to_cos": "yes"}, "flip_sin_to_cos must be true or false"),
    ({"down_block_types": ("DownBlock2D",)}, "every block needs a width, a down type and an up"),
    ({"block_out_channels": ()}, "block_out_channels must be a list with an entry for each"),
    ({"block_out_channels": (8, "16")}, "block_out_channels must be positive integers"),
    ({"mid_block_type": "UNetMidBlock2DCrossAttn"}, "mid_block_type must be 'UNetMidBlock2D' or"),
    ({"layers_per_block": 0}, "layers_per_block must be a positive integer"),
    ({"mid_block_scale_factor": 0}, "mid_block_scale_factor must be a number other than 0"),
    ({"downsample_padding": 2}, "downsample_padding must be 0 or 1, got 2"),
    ({"downsample_padding": True}, "downsample_padding must be 0 or 1, got True"),
    ({"downsample_type": "fir"}, "downsample_type must be 'conv' or 'resnet'"),
    ({"upsample_type": None}, "upsample_type must be 'conv' or 'resnet'"),
    ({"dropout": 1.0}, r"dropout must be a number in \[0, 1\)"),
    ({"act_fn": "tanh"}, "act_fn must be 'silu', 'swish', 'mish', 'gelu' or 'relu', got 'tanh'"),
    ({"attention_head_dim": 17}, "attention_head_dim 17 exceeds the 16 channels"),
    ({"norm_num_groups": 0}, "norm_num_groups must be a positive integer or None, got 0"),
    ({"norm_num_groups": None}, "norm_num_groups None is only for Skip blocks"),
    ({"norm_num_groups": 3}, "norm_num_groups 3 does not divide all"),
    ({"attn_norm_num_groups": 3}, "attn_norm_num_groups 3 does not divide the last"),
    ({"norm_eps": float("nan")}, "norm_eps must be a number of at least 0"),
    ({"resnet_time_scale_shift": "ada_group"}, "must be 'default' or 'scale_shift'"),
    ({"add_attention": None}, "add_attention must be true or false"),
    ({"class_embed_type": "projection"}, "class_embed_type must be None, 'timestep' or 'identity'"),
    ({"num_class_embeds": 0}, "num_class_embeds must be a positive integer or None"),
    ({"num_train_timesteps": 0}, "num_train_timesteps must be a positive integer or None"),
    ({"time_embedding_type": "learned"}, '"learned" needs num_train_timesteps'),
    ({"dtype": "int8"}, "dtype must be 'float32', 'bfloat16' or 'float16', got 'int8'"),
    ({"param_dtype": "no dtype"}, "param_dtype must be 'float32'"),
    ({"remat": 1}, "remat must be true or false, got 1"),
]


@pytest.mark.parametrize(("change", "message"), FAULTS, ids=lambda v: str(v)[:40])
def test_every_fault_has_a_message(change: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        UNet2DModel(**TINY | change)


def test_every_field_can_be_faulty():
    fields = {field.name for field in dataclasses.fields(UNet2DModel)} - {"parent", "name"}
    covered = {name for change, _ in FAULTS for name in change} | {"up_block_types"}
    assert covered == fields


def test_all_faults_at_once():
    with pytest.raises(ValueError, match=r"(?s)in_channels.*layers_per_block.*act_fn.*KDown"):
        UNet2DModel(
            in_channels=0,
            layers_per_block=0,
            act_fn="none",
            down_block_types=("KDownBlock2D",) * 4,
        )


@pytest.mark.parametrize("name", ["CrossAttnDownBlock2D", "UpBlock2D"])
def test_other_blocks_are_refused_by_name(name: str):
    accepted = "'DownBlock2D', .*'SkipDownBlock2D' or 'AttnSkipDownBlock2D'"
    with pytest.raises(ValueError, match=f"'{name}', which is not supported; accepted: {accepted}"):
        UNet2DModel(**TINY | {"down_block_types": (name, "DownBlock2D")})
    up = name.replace("Down", "Up") if "Down" in name else "DownBlock2D"
    with pytest.raises(ValueError, match=f"'{up}', which is not supported"):
        UNet2DModel(**TINY | {"up_block_types": (up, "UpBlock2D")})


def test_head_dim_and_groups_matter_only_if_they_are_used():
    plain = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    wide = {"attention_head_dim": 99, "attn_norm_num_groups": 99}
    UNet2DModel(**TINY | plain | wide | {"add_attention": False})
    UNet2DModel(**TINY | plain | wide | {"mid_block_type": None})
    with pytest.raises(ValueError, match=r"(?s)attn_norm_num_groups 99.*attention_head_dim 99"):
        UNet2DModel(**TINY | plain | wide)
