"""The parameters of UNet2DModel: their names, shapes and numbers."""

import math
from contextlib import nullcontext
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpm_jax.models import UNet2DModel
from tests.models.nets import CAT, CIFAR10, TINY

MICRO = {
    "block_out_channels": (4, 8),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
}

SMALLEST = {
    "block_out_channels": (256,),
    "layers_per_block": 1,
    "mid_block_type": None,
    "down_block_types": ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",),
    "time_embedding_dim": 8,
}


def names(model: UNet2DModel) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(model.shapes())
    return {".".join(key.key for key in path): leaf.shape for path, leaf in leaves}


# The numbers are those of diffusers' models.
@pytest.mark.parametrize(
    ("config", "tensors", "numbers"),
    [
        (CIFAR10, 328, 35_746_307),
        pytest.param(CAT, 450, 113_673_219, marks=pytest.mark.slow),
        pytest.param({}, None, 274_056_163, marks=pytest.mark.slow),
        (MICRO, None, 11_767),
    ],
    ids=["cifar10", "cat", "default", "micro"],
)
def test_counts(config: dict[str, Any], tensors: int | None, numbers: int):
    shapes = names(UNet2DModel(**config))
    assert sum(map(math.prod, shapes.values())) == numbers
    assert tensors is None or len(shapes) == tensors


def test_attention_in_the_middle_may_be_left_out():
    """The goldens have the names that all other options add and remove."""
    found = names(UNet2DModel(**TINY, add_attention=False))
    assert not [name for name in found if name.startswith("mid_block.attentions")]


def test_only_blocks_with_attention_choose_how_they_resample():
    found = names(UNet2DModel(**TINY, downsample_type="resnet", upsample_type="resnet"))
    assert "down_blocks.0.downsamplers.0.conv.kernel" in found
    assert "up_blocks.0.upsamplers.0.conv2.kernel" in found


def test_initial_params():
    model = UNet2DModel(**SMALLEST, param_dtype=jnp.bfloat16, time_embedding_type="fourier")
    params = model.init_params(jax.random.key(0))
    assert type(params) is type(params["up_blocks.0"]) is dict
    for (path, leaf), expected in zip(
        jax.tree_util.tree_leaves_with_path(params), jax.tree.leaves(model.shapes()), strict=True
    ):
        assert (leaf.shape, leaf.dtype) == (expected.shape, jnp.bfloat16), path
        assert path[-1].key == "bias" or np.abs(leaf).max() > 0, path
    # 256 draws of N(0, 16^2): their root mean square is within four standard errors, 16 / sqrt(512)
    weight = np.asarray(params["time_proj"]["weight"], np.float32)
    assert abs(math.sqrt(np.square(weight).mean()) - 16) < 4 * 16 / math.sqrt(512)


def test_initial_params_have_the_distributions_of_torch():
    classes = {"num_class_embeds": 9, "time_embedding_type": "learned", "num_train_timesteps": 9}
    params = UNet2DModel(**SMALLEST | classes | {"time_embedding_dim": 256}).init_params(
        jax.random.key(1)
    )
    resnet = params["down_blocks.0"]["resnets.0"]
    bound = 1 / math.sqrt(9 * 256)
    for values in (resnet["conv1"]["kernel"], resnet["conv1"]["bias"]):
        assert 0.95 * bound < np.abs(values).max() <= bound
        # a uniform variance is bound^2 / 3; 256 draws know it to about 6 %
        assert np.var(values) == pytest.approx(bound**2 / 3, rel=0.25)
    np.testing.assert_array_equal(resnet["norm1"]["scale"], 1)
    np.testing.assert_array_equal(resnet["norm1"]["bias"], 0)
    tables = params["time_proj"]["embedding"], params["class_embedding"]["embedding"]
    assert tables[0].shape == tables[1].shape
    assert abs(np.corrcoef(tables[0].ravel(), tables[1].ravel())[0, 1]) < 0.1  # 1 if drawn alike
    assert np.std(tables[0]) == pytest.approx(1, rel=0.1)


def test_seven_sizes_take_512_pixels():
    """From 512 x 512 down to 8 x 8. tests/parity/test_512_pixels.py compares the numbers."""
    model = UNet2DModel(
        block_out_channels=(4,) * 7,
        down_block_types=(*("DownBlock2D",) * 5, "AttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "AttnUpBlock2D", *("UpBlock2D",) * 5),
        attention_head_dim=4,
        layers_per_block=1,
        norm_num_groups=2,
    )
    for sides, accepted in (((512, 512), True), ((512, 544), False)):
        x = jax.ShapeDtypeStruct((1, *sides, 3), jnp.float32)
        with nullcontext() if accepted else pytest.raises(ValueError, match="multiples of 64"):
            output = jax.eval_shape(model.apply, {"params": model.shapes()}, x, 0)
            assert output.shape == x.shape


def test_tabulate_names_blocks_and_counts():
    model = UNet2DModel(**MICRO)
    x = jnp.zeros((1, 2, 2, 3))
    console = {"width": 140, "no_color": True}
    table = model.tabulate(jax.random.key(0), x, 0, depth=2, console_kwargs=console)
    assert "11,767" in table
    assert "down_blocks.1/attentions.0" in table
    assert "0x" not in table  # no addresses of objects
    assert "object at" not in table
