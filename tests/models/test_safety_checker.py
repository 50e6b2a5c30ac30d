"""StableDiffusionSafetyChecker: its size, its decision, its files, and what it refuses."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ddpm_jax.models import StableDiffusionSafetyChecker
from tests.models.nets import images, params_of

TINY: dict[str, Any] = {
    "projection_dim": 6,
    "vision_hidden_size": 8,
    "vision_intermediate_size": 12,
    "vision_num_hidden_layers": 2,
    "vision_num_attention_heads": 2,
    "vision_image_size": 8,
    "vision_patch_size": 4,
}
WIDE: dict[str, Any] = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "patch_size": 14,
}
CHECKER = StableDiffusionSafetyChecker(**TINY)
PIXELS = images(3, 8, 3)


@pytest.fixture(scope="module")
def params() -> dict[str, Any]:
    return params_of(CHECKER)


@partial(jax.jit, static_argnames="method")
def run(params: Any, pixels: Any = PIXELS, method: str = "__call__") -> jax.Array:
    return CHECKER.apply({"params": params}, pixels, method=method)


def test_the_size_of_stable_diffusion():
    config = {"projection_dim": 768, "vision_config": WIDE}
    leaves = jax.tree.leaves(StableDiffusionSafetyChecker.from_config(config).shapes())
    assert sum(leaf.size for leaf in leaves) == 303_981_588
    assert len(leaves) == 396


def test_scores_around_the_threshold(params: Any):
    """A score of 0.0004 rounds to 0; special care adds 0.01 to the scores of its image alone."""
    features = np.asarray(run(params, method="embed"))
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    apart = 3 * unit - unit.sum(0)  # each image is closest to its own row, by far
    apart = apart / np.linalg.norm(apart, axis=1, keepdims=True)
    cosines = unit @ apart.T
    own = cosines.diagonal()
    assert (cosines + 0.02 < own[None])[~np.eye(3, dtype=bool)].all()
    for score, special, flagged in (
        (0.0004, None, False),
        (0.0006, None, True),
        (-0.0096, 0, False),
        (-0.0094, 0, True),
        (-0.0094, 1, False),
        (-0.0094, None, False),
    ):
        care = special or 0
        changed = params | {
            "concept_embeds": np.broadcast_to(5 * apart[0], (17, 6)),
            "concept_embeds_weights": np.where(np.arange(17) == 9, own[0] - score, 2),
            "special_care_embeds": np.broadcast_to(7 * apart[care], (3, 6)),
            "special_care_embeds_weights": np.array(
                [2, 2 if special is None else own[care] - 1e-3, 2]
            ),
        }
        changed = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), changed)
        assert run(changed).tolist() == [flagged, False, False], (score, special)


def test_preprocess_gives_what_it_takes(params: Any):
    pictures = np.random.default_rng(0).integers(0, 256, (2, 12, 20, 3)).astype(np.uint8)
    assert run(params, CHECKER.preprocess(pictures)).shape == (2,)


def test_both_forms_of_files(tmp_path: Path, params: Any):
    """With `vision_model.` twice and once, and with a buffer of older files."""
    CHECKER.save_pretrained(tmp_path, params)
    file = tmp_path / "model.safetensors"
    long = load_file(file)
    inner = "vision_model.vision_model."
    assert sum(name.startswith(inner) for name in long) == len(long) - 5
    assert long["concept_embeds"].shape == (17, 6)
    short = {name.replace(inner, "vision_model."): value for name, value in long.items()}
    old = long | {f"{inner}embeddings.position_ids": np.arange(5)[None]}
    for tensors in (long, short, old):
        save_file(tensors, file)
        checker, read = StableDiffusionSafetyChecker.from_pretrained(tmp_path)
        assert checker == CHECKER
        jax.tree.map(np.testing.assert_array_equal, read, params)


def test_configs_of_transformers(tmp_path: Path, params: Any):
    """Sections; the text encoder is left out; `vision_config_dict` is that of the first files."""
    CHECKER.save_pretrained(tmp_path, params)
    path = tmp_path / "config.json"
    written = json.loads(path.read_text())
    vision = written["vision_config"]
    assert written["architectures"] == ["StableDiffusionSafetyChecker"]
    assert vision["hidden_size"] == 8
    assert vision["num_channels"] == 3
    assert StableDiffusionSafetyChecker.from_config(CHECKER.config) == CHECKER
    first = {"text_config": {"hidden_size": 5}, "vision_config_dict": vision}
    for config in (
        {"text_config": {"hidden_size": 5}, "dtype": "float16"},
        first | {"vision_config": vision | {"hidden_size": 99, "dropout": 0.0}},
    ):
        path.write_text(json.dumps(written | config))
        assert StableDiffusionSafetyChecker.read_model(tmp_path) == CHECKER


@pytest.mark.usefixtures("as_users_run")
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"vision_patch_size": 3}, "vision_patch_size 3 does not divide vision_image_size 8"),
        ({"vision_hidden_act": "relu"}, "vision_hidden_act must be 'quick_gelu' or 'gelu'"),
        ({"vision_num_attention_heads": 3}, "_heads 3 does not divide vision_hidden_size 8"),
        ({"vision_config": {"num_channels": 1}}, r"not supported: vision_num_channels=1 \(3 is\)"),
        ({"vision_config": 5}, "vision_config must be an object with fields, got 5"),
        ({"projection_dim": 0}, "projection_dim must be a positive integer, got 0"),
    ],
)
def test_faults_of_a_config(fields: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        StableDiffusionSafetyChecker.from_config(TINY | fields)


@pytest.mark.usefixtures("as_users_run")
def test_faults_of_inputs(params: Any):
    for pixels, message in (
        (np.zeros((1, 8, 9, 3), np.float32), r"pixels must be of 8 x 8, got shape \(1, 8, 9, 3\)"),
        (np.zeros((1, 3, 8, 8), np.float32), "channels last"),
        (np.zeros((1, 8, 8, 3), np.uint8), "pixels must hold floats, got uint8"),
    ):
        with pytest.raises(ValueError, match=message):
            run(params, pixels)
