"""Draws README's picture: twelve prompts that no training picture has, each below its avatar.

    python -m examples.avatars.poster docs/images/avatars.png --model avatars

The first picture of each prompt is taken.
"""

import argparse
import textwrap
from pathlib import Path

import jax
import numpy as np
from PIL import Image, ImageDraw, ImageFont

import ddpm_jax as dj
from examples.avatars.captions import full_caption, held_out_people

COLUMNS, ROWS, SCALE, GUIDANCE = 6, 2, 4, 3.0
TILE, TEXT, GAP, LETTERS = 32 * SCALE, 66, 16, 24
"""Pixels of a picture and of the text below it, between tiles, and letters in a line."""


def main() -> None:
    """Writes the file that the command line names."""
    parser = argparse.ArgumentParser(description="Draws twelve prompts with their avatars.")
    parser.add_argument("out", type=Path, help="the PNG file to write")
    parser.add_argument("--model", default="avatars", help="a name, or a folder of the training")
    given = parser.parse_args()
    people = held_out_people(np.random.default_rng(5), COLUMNS * ROWS)
    prompts = [full_caption(person) for person in people]
    pipe = dj.StableDiffusionPipeline.from_pretrained(given.model)
    pictures = pipe(prompts, jax.random.key(0), guidance_scale=GUIDANCE).images
    poster(pictures, prompts).save(given.out, optimize=True)
    print(given.out)


def poster(pictures: list[Image.Image], prompts: list[str]) -> Image.Image:
    """Pictures in rows, each above its prompt."""
    size = COLUMNS * (TILE + GAP) + GAP, ROWS * (TILE + TEXT + GAP) + GAP
    page, font = Image.new("RGB", size, "white"), ImageFont.load_default(size=11)
    draw = ImageDraw.Draw(page)
    for i, (picture, prompt) in enumerate(zip(pictures, prompts, strict=True)):
        row, column = divmod(i, COLUMNS)
        x, y = GAP + column * (TILE + GAP), GAP + row * (TILE + TEXT + GAP)
        page.paste(picture.resize((TILE, TILE), Image.Resampling.NEAREST), (x, y))
        text = "\n".join(textwrap.wrap(prompt, LETTERS))
        draw.multiline_text((x, y + TILE + 4), text, fill="black", font=font)
    return page


if __name__ == "__main__":
    main()
