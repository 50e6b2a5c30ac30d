"""Going on from a model: what is taken, what is new, and what does not fit."""

from typing import Any

import jax
import numpy as np
import pytest
from training.runs import SMALL

from ddpm_jax.hub.files import read_json
from ddpm_jax.hub.hub import BUNDLED
from ddpm_jax.models import UNet2DModel
from ddpm_jax.training.run.finetune import Base, base_settings, fitted, other_process
from ddpm_jax.training.run.settings import Diffusion


@pytest.fixture(scope="module")
def small() -> Base:
    model = UNet2DModel(**SMALL.model.config((4, 4, 1), None, Diffusion()))
    return Base("small", model, model.init_params(jax.random.key(2)))


def wanted(base: Base, **overrides: object) -> UNet2DModel:
    return UNet2DModel.from_config(base.model.config, **overrides)


def fit(base: Base, model: UNet2DModel) -> tuple[dict[str, Any], list[str]]:
    return fitted(base, model, model.init_params(jax.random.key(0)))


def test_settings_are_the_models_own():
    model, diffusion = base_settings("digits")
    own = UNet2DModel.from_config(read_json(BUNDLED / "digits" / "unet" / "config.json"))
    assert UNet2DModel(**model.config((8, 8, 1), None, Diffusion())) == own
    assert diffusion == Diffusion(variance_type="fixed_small")


def test_the_same_model_is_taken_whole(small: Base):
    params, news = fit(small, small.model)
    assert not news
    assert jax.tree.all(jax.tree.map(np.array_equal, params, small.params))


def test_classes_are_new(small: Base):
    model = wanted(small, num_class_embeds=11)
    params, news = fit(small, model)
    assert params["class_embedding"]["embedding"].shape == (11, 16)
    assert np.array_equal(params["conv_in"]["kernel"], small.params["conv_in"]["kernel"])
    assert news == ["class_embedding is new, for 11 classes; small has no"]
    again, left = fit(Base("classy", model, params), small.model)
    assert "class_embedding" not in again
    assert left == ["class_embedding of classy is left out: data.labels is not set"]


def test_a_learned_variance_leaves_the_prediction(small: Base):
    model = wanted(small, out_channels=2)
    params, news = fit(small, model)
    assert news == ["conv_out has 1 new channels, at 0, for the variance"]
    x, t = jax.random.normal(jax.random.key(1), (2, 4, 4, 1)), 500
    before = jax.jit(small.model.apply)({"params": small.params}, x, t)
    after = jax.jit(model.apply)({"params": params}, x, t)
    np.testing.assert_allclose(after[..., :1], before, atol=1e-6)  # another dot, rounded otherwise
    assert not np.any(after[..., 1:])


def test_other_architectures_are_refused(small: Base):
    wide = wanted(small, block_out_channels=(8,))
    with pytest.raises(ValueError, match=r"small does not fit these settings: conv_in.bias is"):
        fit(small, wide)


def test_another_forward_process_is_said(small: Base):
    """What differs from how the model was trained, except what only sampling uses."""
    before = Diffusion(variance_type="fixed_small")
    now = Diffusion(prediction_type="v_prediction", clip_sample=False)
    assert other_process(small._replace(diffusion=before), now) == [
        "diffusion.prediction_type is v_prediction; small was trained with epsilon"
    ]
    (sentence,) = other_process(small, now)
    assert sentence.startswith("small came without a scheduler: it is assumed to predict v_pred")
