"""Trains the autoencoder: 32x32 pictures to 8x8 latents of four channels, and back.

    (1)  loss = mean |x - y| + mean (x - y)^2 + weight KL,   y = decode(mean + std noise)

KL is that from N(0, 1) to the latents, a mean over them. Writes `vae/`, with the scale that
gives latents a standard deviation of 1, and `latents.npz`, the mean and std of each picture's.

    python -m examples.avatars.train_vae avatars.npz run
"""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ddpm_jax.models import AutoencoderKL
from ddpm_jax.models.autoencoder_kl.model import Posterior
from ddpm_jax.training import Ema, Optimizer, init_state, make_train_step, make_update
from ddpm_jax.training.step import LossFunction
from examples.avatars.loop import in_parts, run, shuffled

VAE: dict[str, Any] = {
    "block_out_channels": (16, 32, 64),
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "latent_channels": 4,
    "sample_size": 32,
}
KL_WEIGHT = 1e-3
BATCH = 16


def main(args: Sequence[str] | None = None) -> None:
    """Trains, or goes on with training, in the folder that the command line names."""
    parser = argparse.ArgumentParser(description="Trains the autoencoder of the avatars.")
    parser.add_argument("data", type=Path, help="what draw.py wrote")
    parser.add_argument("out", type=Path, help="a folder; checkpoints in it are gone on with")
    parser.add_argument("--steps", type=int, default=2200, help="updates (default 2200)")
    given = parser.parse_args(args)
    images = np.load(given.data)["image"]
    train(images, given.out, given.steps)


def train(images: np.ndarray, out: Path, steps: int, config: dict[str, Any] = VAE) -> None:
    """Writes `vae/` and `latents.npz` into a folder."""
    model = AutoencoderKL(**config)
    adam = Optimizer(learning_rate=2e-3, warmup_steps=100, decay="cosine").make(steps)
    update = make_train_step(make_update(make_loss(model), adam, Ema(decay=0.995, power=0.75)))
    state = init_state(model.init_params(jax.random.key(0)), adam, jax.random.key(1))
    state = run(
        out / "vae-run",
        state,
        update,
        lambda step: {"image": to_floats(images[shuffled(len(images), BATCH, 0, step)])},
        steps,
    )
    mean, std = encode(model, state.ema, images)
    scale = float(1 / np.sqrt(np.mean(std**2) + np.var(mean)))
    AutoencoderKL(**config, scaling_factor=scale).save_pretrained(out / "vae", state.ema)
    np.savez(out / "latents.npz", mean=mean, std=std)
    noise = scale * std.mean()
    print(f"{out / 'vae'}: scaling_factor {scale:.4f}, std of the latents' noise {noise:.4f}")


def make_loss(model: AutoencoderKL) -> LossFunction:
    """The loss of equation (1), for `make_update`."""

    def loss(params: Any, batch: Any, key: Array) -> tuple[Array, dict[str, Array]]:
        x = batch["image"]
        apply = partial(model.apply, {"params": params})
        mean, std = posterior = cast(Posterior, apply(x, method="encode"))
        z = posterior.sample(jax.random.normal(key, mean.shape))
        error = cast(Array, apply(z, method="decode")) - x
        kl = 0.5 * (mean**2 + std**2 - 1 - 2 * jnp.log(std)).mean()
        pixels = jnp.abs(error).mean()
        total = pixels + jnp.square(error).mean() + KL_WEIGHT * kl
        return total, {"loss": total, "pixels": pixels, "kl": kl}

    return loss


def to_floats(images: np.ndarray) -> np.ndarray:
    """uint8 to floats in [-1, 1]."""
    return images.astype(np.float32) / 127.5 - 1


def encode(model: AutoencoderKL, params: Any, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and std of the latents of all images, not scaled."""
    encode = jax.jit(lambda x: model.apply({"params": params}, x, method="encode"))
    parts = [encode(to_floats(images[part])) for part in in_parts(len(images), 500)]
    mean, std = (np.concatenate(column) for column in zip(*parts, strict=True))
    return mean, std


if __name__ == "__main__":
    main()
