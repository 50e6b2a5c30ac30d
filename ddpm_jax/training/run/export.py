"""A folder that diffusers loads, out of a run.

Its weights are the moving average; the raw params are there too, as variant "non_ema".
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ddpm_jax.hub import class_names
from ddpm_jax.models import UNet2DModel
from ddpm_jax.pipelines.unconditional import DDPMPipeline
from ddpm_jax.schedulers import DDPMScheduler

RAW = "non_ema"
"""The variant's name that published checkpoints use."""


def export(
    folder: Path,
    model: UNet2DModel,
    scheduler: DDPMScheduler,
    ema: Any,
    params: Any,
    classes: Sequence[str] | None = None,
) -> None:
    """Writes `model_index.json`, `unet/` with both sets of weights, `scheduler/`, and
    `id2label.json`.

    Args:
        folder: may exist; files of the same names are overwritten.
        model: the network.
        scheduler: that it was trained under.
        ema: the moving average.
        params: the raw ones.
        classes: their names, for `id2label.json`; None: no such file.
    """
    host = jax.tree.map(np.asarray, ema)
    DDPMPipeline(unet=model, params=host, scheduler=scheduler).save_pretrained(folder)
    model.save_pretrained(
        folder / model.files.folder, jax.tree.map(np.asarray, params), variant=RAW
    )
    if classes is not None:
        class_names.write(folder, dict(enumerate(classes)))
