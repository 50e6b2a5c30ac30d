"""The pictures of docs/research.md, of digits: `python -m examples.research.pictures`.

Takes a minute or two on two CPU cores. Needs scikit-learn for real digits: `-e '.[evaluation]'`.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

import ddpm_jax as dj
from ddpm_jax.evaluation.digits import real_digits

OUT = Path(__file__).parents[2] / "docs" / "images"
KEY = jax.random.key(0)
QUIET: dict[str, Any] = {"output_type": "np", "progress": False}


def save(name: str, rows: list[np.ndarray]) -> None:
    """Rows of images as one picture."""
    grid = dj.make_grid(np.concatenate(rows).astype(np.float32), len(rows[0]), scale=6)
    grid.save(OUT / f"research-{name}.png")


def real(count: int) -> np.ndarray:
    """Real digits, one of each class in turn."""
    return real_digits().images[:count].reshape(-1, 8, 8, 1).astype(np.float32)


def encoded(pipe: dj.DDIMPipeline) -> None:
    """Digits; what 10 and 100 steps up and down make of them."""
    images = real(10)
    rows = [images]
    for steps in (10, 100):
        x_T = pipe.encode(images, num_inference_steps=steps, progress=False)
        rows.append(pipe(KEY, x_T=x_T, num_inference_steps=steps, **QUIET).images)
    save("encoded", rows)


def interpolated(pipe: dj.DDIMPipeline) -> None:
    """Between the noises of two digits, as Figure 6 of arXiv:2010.02502: four pairs."""
    x_T = pipe.encode(real(8), num_inference_steps=100, progress=False)
    share = jnp.linspace(0, 1, 11)
    pairs = [dj.slerp(x_T[i : i + 1], x_T[i + 1 : i + 2], share) for i in (0, 2, 4, 6)]
    rows = [pipe(KEY, x_T=one, num_inference_steps=100, **QUIET).images for one in pairs]
    save("interpolated", rows)


def begun(pipe: dj.DDIMPipeline) -> None:
    """Image to image by DDPM: digits, and what a part of the run makes of them."""
    images, rows = real(10), [real(10)]
    for strength in (0.3, 0.5, 0.7):
        call: dict[str, Any] = {"eta": 1.0, "num_inference_steps": 100, **QUIET}
        rows.append(pipe(KEY, image=images, strength=strength, **call).images)
    save("image-to-image", rows)


def inpainted(pipe: dj.DDIMPipeline) -> None:
    """Digits without their right half, and that half made anew: without jumps, and by RePaint."""
    images, mask = real(10), np.zeros((8, 8), np.float32)
    mask[:, 4:] = 1
    hidden = np.where(mask[..., None] > 0, 0.5, images)
    repaint: Any = dj.RePaintPipeline.from_pipe(pipe)
    repaint.scheduler = dj.RePaintScheduler.from_config(pipe.scheduler.config, eta=1.0)
    given: dict[str, Any] = {"image": images, "mask_image": mask, "num_inference_steps": 100}
    rows = [images, hidden, *(
        repaint(KEY, **given, jump_n_sample=times, **QUIET).images for times in (1, 10)
    )]  # fmt: skip
    save("inpainted", rows)


def animated(pipe: dj.DDIMPipeline) -> None:
    """A run: its predictions, as a strip and as an animation."""
    frames: list[np.ndarray] = []
    call: dict[str, Any] = {"num_inference_steps": 40, "batch_size": 16, **QUIET}
    pipe(KEY, callback=lambda _, images: frames.append(images), callback_every=2, **call)
    save("strip", list(np.stack(frames[::2]).swapaxes(0, 1)[:4]))
    grids: list[Image.Image] = [dj.make_grid(frame, scale=4) for frame in frames]
    dj.save_gif(OUT / "research-run.gif", grids, milliseconds=120)


def main() -> None:
    """Draws all."""
    pipe: Any = dj.DDIMPipeline.from_pretrained("digits")
    for draw in (begun, inpainted, animated):
        draw(pipe)
    pipe.scheduler = dj.DDIMScheduler.from_config(pipe.scheduler.config, clip_sample=False)
    for draw in (encoded, interpolated):
        draw(pipe)


if __name__ == "__main__":
    main()
