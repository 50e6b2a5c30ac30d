"""Small models for the tests of pipelines: they compile in a second or two."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import ddpm_jax as dj

SIZE = 8

FILES = [
    "model_index.json",
    "scheduler/scheduler_config.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
]
"""A saved pipeline."""


@cache
def tiny(**fields: Any) -> tuple[dj.UNet2DModel, dict[str, Any]]:
    """A model with one down and one up block, for 8 x 8 gray images, with random params."""
    config = {
        "sample_size": SIZE,
        "in_channels": 1,
        "out_channels": 1,
        "down_block_types": ("DownBlock2D",),
        "up_block_types": ("UpBlock2D",),
        "mid_block_type": None,
        "block_out_channels": (8,),
        "layers_per_block": 1,
        "norm_num_groups": 4,
    }
    model = dj.UNet2DModel(**(config | fields))
    label = None if model.config.num_class_embeds is None else jnp.zeros(1, int)
    x = jnp.zeros((1, SIZE, SIZE, model.config.in_channels))
    shapes = jax.eval_shape(lambda key: model.init(key, x, 0, label)["params"], jax.random.key(0))
    random = np.random.default_rng(0)

    def draw(leaf: jax.ShapeDtypeStruct) -> jax.Array:
        # Large enough for timesteps and pixels to matter. jnp.asarray would compile for each shape.
        return jax.device_put(random.normal(0, 0.2, leaf.shape).astype(leaf.dtype))

    return model, jax.tree.map(draw, shapes)


def scheduler() -> dj.DDPMScheduler:
    """The scheduler of the tiny models."""
    return dj.DDPMScheduler(clip_sample=True, timestep_spacing="leading")


def pipeline(cls: Any, **fields: Any) -> Any:
    """A pipeline of a tiny model."""
    model, params = tiny(**fields)
    return cls(unet=model, params=params, scheduler=scheduler())


def edit(path: Path, **changes: Any) -> None:
    """Changes fields of a JSON file; `...` removes one."""
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not ...}))


def files(folder: Path) -> list[str]:
    """Paths of all files under a folder."""
    return sorted(f.relative_to(folder).as_posix() for f in folder.rglob("*") if f.is_file())


def same_params(a: Any, b: Any) -> bool:
    """Whether two trees have equal numbers."""
    return jax.tree.all(jax.tree.map(np.array_equal, a, b))
