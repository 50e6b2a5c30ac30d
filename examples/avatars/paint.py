"""Pictures of prompts, by the library's functions: what a text-to-image pipeline does.

python -m examples.avatars.paint run "a smiling person with green hair and glasses" --out a.png
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

import ddpm_jax as dj
from ddpm_jax.guidance.classifier_free import guided
from ddpm_jax.images import to_unit
from ddpm_jax.models import AutoencoderKL, CLIPTextModel, UNet2DConditionModel
from ddpm_jax.text.tokenizer import CLIPTokenizer

SCALE = 3.0
"""Of the guidance: the best of those that measure.py tries."""
STEPS = 50


class Painter:
    """The model in a folder.

    Args:
        folder: of the pipeline.
    """

    def __init__(self, folder: Path):
        self.tokenizer = CLIPTokenizer.from_pretrained(folder)
        text, self._text = CLIPTextModel.from_pretrained(folder)
        unet, self._unet = UNet2DConditionModel.from_pretrained(folder)
        vae, self._vae = AutoencoderKL.from_pretrained(folder)
        self.scheduler = dj.DDIMScheduler.from_pretrained(folder)
        self._denoise = guided(unet.denoise)
        side = cast(int, unet.sample_size)
        self._shape = (side, side, unet.in_channels)
        self._encode = jax.jit(text.apply)
        scale = vae.scaling_factor
        self._decode = jax.jit(lambda p, z: vae.apply({"params": p}, z / scale, method="decode"))

    def __call__(
        self, prompts: Sequence[str], key: Array, *, scale: float = SCALE, steps: int = STEPS
    ) -> np.ndarray:
        """(B, 32, 32, 3) uint8.

        Args:
            prompts: what is to be seen.
            key: of the noise.
            scale: of the guidance, at least 1.
            steps: of DDIM.
        """
        table = self.scheduler.table(steps)
        x_T = dj.prior(table, dj.sample_keys(key, len(prompts)), self._shape)
        params = {
            "network": self._unet,
            "context": self._features(prompts),
            "negative": self._features([""] * len(prompts)),
            "scale": jnp.float32(scale),
        }
        latents = dj.sample(self._denoise, params, table, x_T)
        return dj.to_uint8(to_unit(np.asarray(self._decode(self._vae, latents))))

    def _features(self, texts: Sequence[str]) -> Array:
        return self._encode({"params": self._text}, self.tokenizer(texts))


def main(args: Sequence[str] | None = None) -> None:
    """Writes the picture that the command line asks for."""
    parser = argparse.ArgumentParser(description="Draws avatars from prompts.")
    parser.add_argument("model", type=Path, help="the folder of a trained model")
    parser.add_argument("prompts", nargs="+", help="one picture each")
    parser.add_argument("--out", type=Path, default=Path("avatars.png"), help="(avatars.png)")
    parser.add_argument("--seed", type=int, default=0, help="of the noise (0)")
    parser.add_argument("--scale", type=float, default=SCALE, help=f"of the guidance ({SCALE})")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"of DDIM ({STEPS})")
    given = parser.parse_args(args)
    paint = Painter(given.model)
    images = paint(given.prompts, jax.random.key(given.seed), scale=given.scale, steps=given.steps)
    dj.make_grid(images / 255.0).save(given.out)
    print(given.out)


if __name__ == "__main__":
    main()
