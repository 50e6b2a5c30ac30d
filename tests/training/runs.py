"""Runs that take seconds: one resolution, four channels, eight digits an update."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from ddpm_jax.training.data import Data
from ddpm_jax.training.ema import Ema
from ddpm_jax.training.optimizer import Optimizer
from ddpm_jax.training.run.plan import make_plan
from ddpm_jax.training.run.run import Outcome, train
from ddpm_jax.training.run.settings import Loop, Model, Settings

SMALL = Settings(
    data=Data(name="digits", held_out=16),
    model=Model(
        down_block_types=("DownBlock2D",),
        mid_block_type=None,
        up_block_types=("UpBlock2D",),
        block_out_channels=(4,),
        layers_per_block=1,
        norm_num_groups=2,
        add_attention=False,
        dropout=0.1,
    ),
    optimizer=Optimizer(learning_rate=1e-3, warmup_steps=2),
    ema=Ema(decay=0.9, power=0.75),
    loop=Loop(
        steps=8,
        batch_size=8,
        log_every=2,
        save_every=4,
        sample_every=8,
        sample_num=4,
        sample_steps=3,
        eval_every=4,
    ),
)


def with_loop(settings: Settings = SMALL, **fields: Any) -> Settings:
    return replace(settings, loop=replace(settings.loop, **fields))


def run(out: Path, settings: Settings = SMALL, **how: Any) -> Outcome:
    return train(make_plan(settings, out), progress=False, **how)


def weights(folder: Path) -> dict[str, bytes]:
    """The bits of both sets of weights of a finished run."""
    return {
        path.name: path.read_bytes() for path in sorted((folder / "unet").glob("*.safetensors"))
    }
