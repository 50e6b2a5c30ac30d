"""DPTForDepthEstimation: its size, doubling, its files, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpm_jax.models import DPTForDepthEstimation
from ddpm_jax.models.dpt import neck
from tests.models.nets import images, params_of

BACKBONE: dict[str, Any] = {
    "layer_type": "bottleneck",
    "global_padding": "SAME",
    "embedding_dynamic_padding": True,
    "out_features": ["stage1", "stage2", "stage3"],
}
HYBRID: dict[str, Any] = {
    "is_hybrid": True,
    "neck_hidden_sizes": [256, 512, 768, 768],
    "reassemble_factors": [1, 1, 1, 0.5],
    "backbone_config": BACKBONE | {"depths": [3, 4, 9]},
}
TINY: dict[str, Any] = HYBRID | {
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "image_size": 32,
    "backbone_out_indices": [0, 0, 0, 1],
    "backbone_featmap_shape": [1, 32, 2, 2],
    "neck_hidden_sizes": [32, 32, 4, 6],
    "fusion_hidden_size": 4,
    "backbone_config": BACKBONE
    | {"depths": [1, 1, 1], "hidden_sizes": [32, 32, 32], "embedding_size": 4, "num_groups": 2},
}
DPT = DPTForDepthEstimation.from_config(TINY)


@pytest.fixture(scope="module")
def params() -> dict[str, Any]:
    made = params_of(DPT)
    made["head"]["head.4"]["bias"] += 0.5  # above the 0 that depth is cut off at
    return made


@jax.jit
def run(params: Any, pixels: Any) -> Any:
    return DPT.apply({"params": params}, pixels)


def test_the_size_of_dpt_hybrid():
    leaves = jax.tree.leaves(DPTForDepthEstimation.from_config(HYBRID).shapes())
    assert sum(leaf.size for leaf in leaves) == 122_377_985
    assert len(leaves) == 414


def test_depth_is_that_of_each_image_and_not_negative(params: Any):
    depth = run(params, images(2, 32, 3)[jnp.array([0, 1, 0])])
    assert depth.shape == (3, 32, 32)
    assert depth.dtype == jnp.float32
    assert depth.min() >= 0
    np.testing.assert_allclose(depth[0], depth[2], rtol=1e-5, atol=1e-6)
    assert np.abs(depth[0] - depth[1]).max() > 0.1 * depth[0].std() > 0


def test_doubling_keeps_the_corners_and_straight_lines():
    rows, columns = np.linspace(0, 1, 3), np.linspace(5, 7, 4)
    x = jnp.asarray(rows[:, None] + columns[None], jnp.float32)[None, ..., None]
    expected = np.linspace(0, 1, 6)[:, None] + np.linspace(5, 7, 8)[None]
    np.testing.assert_allclose(neck.double(x)[0, ..., 0], expected, rtol=1e-6)
    one = jnp.ones((1, 1, 1, 2))
    np.testing.assert_array_equal(neck.double(one), jnp.ones((1, 2, 2, 2)))


def test_preprocess_gives_what_it_takes():
    made = DPT.preprocess(np.full((2, 12, 20, 3), 255, np.uint8))
    np.testing.assert_array_equal(made, np.ones((2, 32, 32, 3), np.float32))


def test_files(tmp_path: Path, params: Any):
    DPT.save_pretrained(tmp_path, params)
    model, read = DPTForDepthEstimation.from_pretrained(tmp_path)
    assert model == DPT
    jax.tree.map(np.testing.assert_array_equal, read, params)
    written = json.loads((tmp_path / "config.json").read_text())
    assert written["architectures"] == ["DPTForDepthEstimation"]
    assert written["backbone_config"]["model_type"] == "bit"
    assert written["backbone_config"]["depths"] == [1, 1, 1]
    unread = {"hidden_dropout_prob": 0.1, "semantic_classifier_dropout": 0.1, "dtype": "float16"}
    (tmp_path / "config.json").write_text(json.dumps(written | unread))
    assert DPTForDepthEstimation.read_model(tmp_path) == DPT


def changed(**fields: Any) -> dict[str, Any]:
    return TINY | {"backbone_config": TINY["backbone_config"] | fields}


@pytest.mark.usefixtures("as_users_run")
@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "only hybrid networks: is_hybrid must be true, got False"),
        (TINY | {"image_size": 48}, "image_size must be a multiple of 32, got 48"),
        (TINY | {"readout_type": "add"}, r"not supported: readout_type='add' \('project' is\)"),
        (TINY | {"use_bias_in_fusion_residual": False}, "must be None or True, got False"),
        (TINY | {"backbone_out_indices": [0, 1]}, "backbone_out_indices must be a list of 4"),
        (TINY | {"backbone_out_indices": [0, 0, 1, 2]}, r"ascend in 0\.\.1, got 1 and 2"),
        (TINY | {"reassemble_factors": [4, 2, 1, 1]}, "the last two of reassemble_factors"),
        (TINY | {"neck_hidden_sizes": [8, 32, 4, 6]}, "must begin as bit_hidden_sizes"),
        (TINY | {"backbone_featmap_shape": [1, 9, 2, 2]}, "channels of the last stage, 32, got"),
        (TINY | {"fusion_hidden_size": 3}, "fusion_hidden_size must be even, got 3"),
        (TINY | {"layer_norm_eps": "0"}, "layer_norm_eps must be a number of at least 0"),
        (changed(layer_type="preactivation"), "bit_layer_type must be 'bottleneck', got 'preac"),
        (changed(global_padding=None), "bit_global_padding must be 'SAME' or 'same', got None"),
        (changed(depths=[1, 1, 1, 1]), "bit_depths must be a list of 3 positive integers"),
        (changed(hidden_sizes=[32, 32]), "bit_hidden_sizes must be a list of at least 3 pos"),
        (changed(hidden_sizes=[32, 32, 24]), "bit_hidden_sizes must be multiples of 32"),
        (changed(num_groups=3), "bit_num_groups 3 must divide bit_embedding_size 4"),
        (changed(hidden_act="gelu"), r"not supported: bit_hidden_act='gelu' \('relu' is\)"),
    ],
)
def test_faults_of_a_config(config: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        DPTForDepthEstimation.from_config(config)


@pytest.mark.usefixtures("as_users_run")
def test_faults_of_inputs(params: Any):
    for pixels, message in (
        (np.zeros((1, 64, 64, 3), np.float32), "pixels must be of 32 x 32, got shape"),
        (np.zeros((1, 32, 32, 1), np.float32), "channels last"),
    ):
        with pytest.raises(ValueError, match=message):
            run(params, pixels)
