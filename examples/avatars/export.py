"""Copies a trained model's folder in float16, which halves it.

python -m examples.avatars.export run avatars
"""

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

import jax.numpy as jnp

from ddpm_jax.hub.component import MODEL_INDEX
from ddpm_jax.models import AutoencoderKL, CLIPTextModel, UNet2DConditionModel
from ddpm_jax.schedulers import DDIMScheduler
from ddpm_jax.text.tokenizer import CLIPTokenizer

NETWORKS = (CLIPTextModel, UNet2DConditionModel, AutoencoderKL)


def main(args: Sequence[str] | None = None) -> None:
    """Writes the folder that the command line names."""
    parser = argparse.ArgumentParser(description="Copies a trained model's folder in float16.")
    parser.add_argument("run", type=Path, help="the folder of train.py")
    parser.add_argument("out", type=Path, help="the folder to write")
    given = parser.parse_args(args)
    export(given.run, given.out)
    size = sum(file.stat().st_size for file in given.out.rglob("*") if file.is_file())
    print(f"{given.out}: {size / 1e6:.2f} MB")


def export(run: Path, out: Path) -> None:
    """Copies a pipeline's folder, weights in float16."""
    for network in NETWORKS:
        model, params = network.from_pretrained(run, param_dtype=jnp.float16)
        model.save_pretrained(out / network.files.folder, params)
    DDIMScheduler.from_pretrained(run).save_pretrained(out / DDIMScheduler.files.folder)
    CLIPTokenizer.from_pretrained(run).save_pretrained(out / CLIPTokenizer.files.folder)
    shutil.copy(run / MODEL_INDEX, out / MODEL_INDEX)


if __name__ == "__main__":
    main()
