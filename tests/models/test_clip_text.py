"""CLIPTextModel: sizes, causality, clip_skip, both forms of its files, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ddpm_jax.models import CLIPTextModel
from tests.models.nets import params_of

TINY: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "max_position_embeddings": 10,
}
MODEL = CLIPTextModel(**TINY)
IDS = np.random.default_rng(0).integers(0, 50, (2, 10))


@pytest.fixture(scope="module")
def params() -> dict[str, Any]:
    return params_of(MODEL)


def run(params: Any, ids: Any, model: CLIPTextModel = MODEL, clip_skip: int = 0) -> jax.Array:
    return jax.jit(lambda p, i: model.apply({"params": p}, i, clip_skip=clip_skip))(params, ids)


@pytest.mark.parametrize(
    ("width", "layers", "heads", "count", "tensors"),
    [(768, 12, 12, 123_060_480, 196), (1024, 23, 16, 340_387_840, 372)],
    ids=["1.x", "2.x"],
)
def test_the_sizes_of_stable_diffusion(width, layers, heads, count, tensors):
    model = CLIPTextModel(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
    )
    leaves = jax.tree.leaves(model.shapes())
    assert sum(leaf.size for leaf in leaves) == count
    assert len(leaves) == tensors


def test_a_token_sees_only_those_before_it(params: Any):
    changed = IDS.copy()
    changed[:, 6] = (changed[:, 6] + 1) % 50
    first, second = run(params, IDS), run(params, changed)
    np.testing.assert_array_equal(first[:, :6], second[:, :6])
    assert (np.abs(first - second)[:, 6:].max(-1) > 1e-4).all()
    np.testing.assert_allclose(run(params, IDS[:, :4]), first[:, :4], atol=1e-5)


def test_clip_skip_leaves_out_the_last_layers(params: Any):
    shorter = MODEL.clone(num_hidden_layers=2)
    encoder = params["text_model"]["encoder"]
    kept = {name: encoder[name] for name in ("layers.0", "layers.1")}
    fewer = {"text_model": params["text_model"] | {"encoder": kept}}
    skipped = run(params, IDS, clip_skip=1)
    np.testing.assert_array_equal(skipped, run(fewer, IDS, shorter))
    assert np.abs(skipped - run(params, IDS)).max() > 1e-2


def test_an_id_outside_the_vocabulary_is_nan(params: Any):
    ids = IDS.copy()
    ids[0, 3] = 50
    features = run(params, ids)
    assert np.isnan(features[0, 3:]).all()
    assert np.isfinite(features[1]).all()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision(params: Any, dtype: str):
    ours = run(params, IDS, MODEL.clone(dtype=jnp.dtype(dtype)))
    exact = run(params, IDS)
    assert ours.dtype == jnp.float32
    assert 0 < np.abs(ours - exact).mean() < 0.05 * exact.std()


def test_both_forms_of_files(tmp_path: Path, params: Any):
    """With and without `text_model.`, and of a whole CLIP, whose other parts are left out."""
    MODEL.save_pretrained(tmp_path, params)
    file = tmp_path / "model.safetensors"
    long = load_file(file)
    assert all(name.startswith("text_model.") for name in long)
    position_ids = np.arange(10)[None]
    other = {"logit_scale": np.float32(1)[None], "vision_model.post_layernorm.bias": np.zeros(4)}
    whole = long | other | {"text_model.embeddings.position_ids": position_ids}
    short = {name.removeprefix("text_model."): value for name, value in long.items()}
    for tensors in (long, short, whole):
        save_file(tensors, file)
        model, read = CLIPTextModel.from_pretrained(tmp_path)
        assert model == MODEL
        jax.tree.map(np.testing.assert_array_equal, read, params)


def test_configs_of_transformers(tmp_path: Path, params: Any):
    """What it writes beside the fields is left out, a dtype above all."""
    MODEL.save_pretrained(tmp_path, params)
    path = tmp_path / "config.json"
    written = json.loads(path.read_text())
    assert written["architectures"] == ["CLIPTextModel"]
    path.write_text(json.dumps(written | {"dtype": "float16", "torch_dtype": "float16", "new": 1}))
    model, _ = CLIPTextModel.from_pretrained(tmp_path, dtype=jnp.bfloat16)
    assert model == MODEL.clone(dtype=jnp.dtype(jnp.bfloat16))
    path.write_text(json.dumps(written | {"architectures": ["CLIPTextModelWithProjection"]}))
    with pytest.raises(ValueError, match="a CLIPTextModelWithProjection, not of a CLIPTextModel"):
        CLIPTextModel.from_pretrained(tmp_path)


@pytest.mark.usefixtures("as_users_run")
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden_act": "gelu_new"}, "hidden_act must be 'quick_gelu' or 'gelu', got 'gelu_new'"),
        ({"num_attention_heads": 3}, "num_attention_heads 3 does not divide hidden_size 8"),
        ({"layer_norm_eps": -1}, "layer_norm_eps must be a number of at least 0"),
        ({"vocab_size": None}, "vocab_size must be a positive integer, got None"),
    ],
)
def test_faults_of_a_config(fields: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        CLIPTextModel(**TINY | fields)


@pytest.mark.usefixtures("as_users_run")
def test_faults_of_inputs(params: Any):
    for ids, skip, message in (
        (np.zeros((1, 11), int), 0, r"ids must be \(batch, tokens\) with 1 to 10 tokens"),
        (np.zeros(5, int), 0, r"got shape \(5,\)"),
        (np.zeros((1, 5)), 0, "ids must be integers, got float32"),
        (IDS, 3, r"clip_skip must lie in 0..2, got 3"),
    ):
        with pytest.raises(ValueError, match=message):
            run(params, ids, clip_skip=skip)
