"""Draws avatars of people at random into an array file, to train on.

    python -m examples.avatars.draw avatars.npz --num 40000

The style is DiceBear's "Pixel Art" (CC0 1.0), 16x16 pixels, here enlarged to 32x32. Needs:
pip install dicebear-core dicebear-styles resvg-py
"""

import argparse
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import resvg_py
from dicebear import Avatar, Style
from PIL import Image
from tqdm import tqdm

from examples.avatars.people import (
    BACKGROUND,
    COLORS,
    NONE,
    SKINS,
    TRAITS,
    Color,
    Person,
    draw_person,
    is_held_out,
    to_numbers,
)

SIZE = 32
"""Side of a picture in pixels."""
LEAST_HAIR = 40
"""Pixels of hair that must be seen, of 1024: a hat covers some hair, and some is a fringe only."""

FRAMES, MOUTHS = (48, 48, 48), ((200, 72, 72), (222, 110, 100), (160, 60, 56))
EYES = ((92, 124, 140), (70, 110, 70), (120, 84, 52), (60, 60, 64))
PROBES: dict[str, Color] = {"hair": (255, 0, 0), "skin": (0, 255, 0), "clothing": (0, 0, 255)}
"""Colors of no trait, one channel each, which show what belongs to which part."""

Options = Mapping[str, Any]


def main(args: Sequence[str] | None = None) -> None:
    """Writes the file that the command line names."""
    parser = argparse.ArgumentParser(description="Draws avatars into an .npz file.")
    parser.add_argument("out", type=Path, help="the .npz file to write")
    parser.add_argument("--num", type=int, default=40_000, help="how many (default 40000)")
    parser.add_argument("--seed", type=int, default=0, help="of the people (default 0)")
    given = parser.parse_args(args)
    if given.num < 1 or given.seed < 0 or given.out.suffix != ".npz":
        parser.error("--num must be at least 1, --seed at least 0, and the file must end in .npz")
    rng = np.random.default_rng(given.seed)
    people = [person_to_train_on(rng) for _ in range(given.num)]
    images = pictures(tqdm(people, desc="drawing"), rng)
    columns = [to_numbers(person) for person in people]
    arrays: dict[str, Any] = {
        name: np.array([row[name] for row in columns], np.int8) for name in TRAITS
    }
    np.savez_compressed(given.out, image=images, **arrays)
    print(f"{given.out}: {len(images)} avatars of {SIZE}x{SIZE}")


def person_to_train_on(rng: np.random.Generator) -> Person:
    """A person at random who is not held out."""
    while is_held_out(person := draw_person(rng)):
        pass
    return person


def options(person: Person, rng: np.random.Generator) -> dict[str, Any]:
    """DiceBear's options for a person; shapes that no trait names are drawn."""
    chosen: dict[str, Any] = {"size": SIZE, "accessoriesProbability": 0}
    parts = {
        "clothes": "variant",
        "eyes": "variant",
        "mouth": {"smiling": "happy", "sad": "sad"}[person["mouth"]],
        "glasses": {NONE: None, "glasses": "light", "sunglasses": "dark"}[person["glasses"]],
        "beard": None if person["beard"] == NONE else "variant",
    }
    for part, prefix in parts.items():
        chosen |= _shape(part, prefix, rng)
    hat = None if person["hat"] == NONE else "variant"
    while True:
        shapes = _shape("hair", person["length"], rng) | _shape("hat", hat, rng)
        if _visible_hair(shapes["hairVariant"][0], (*shapes.get("hatVariant", ()), None)[0]):
            break
    colors = {
        "background": BACKGROUND,
        "hair": COLORS[person["hair"]],
        "skin": SKINS[person["skin"]],
        "clothing": COLORS[person["clothing"]],
        "hat": COLORS.get(person["hat"], FRAMES),
        "glasses": FRAMES,
        "mouth": MOUTHS[rng.integers(len(MOUTHS))],
        "eyes": EYES[rng.integers(len(EYES))],
    }
    return chosen | shapes | _in_colors(colors)


def pictures(people: Iterable[Person], rng: np.random.Generator) -> np.ndarray:
    """(n, 32, 32, 3) uint8: one of each person, of shapes at random."""
    return np.stack([picture(options(person, rng)) for person in people])


def picture(options: Options) -> np.ndarray:
    """(32, 32, 3) uint8."""
    svg = Avatar(_style(), dict(options)).to_string()
    # A beard is masked by the lightness of its color, so that a dark one is not seen.
    svg = svg.replace("mask-type:luminance", "mask-type:alpha")
    png = bytes(resvg_py.svg_to_bytes(svg_string=svg, skip_system_fonts=True))
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def masks(options: Options) -> dict[str, np.ndarray]:
    """(32, 32) bool for hair, skin and clothing: where a picture with these options has them."""
    bare = {"background": (0, 0, 0), "hat": (0, 0, 0), "glasses": (0, 0, 0)}
    image = picture({**options, **_in_colors(PROBES | bare)}).astype(int)
    pure = np.sort(image, axis=-1)
    clear = pure[..., 2] - pure[..., 1] > 200  # not mixed half and half with another color
    return {part: clear & (image.argmax(-1) == channel) for channel, part in enumerate(PROBES)}


@cache
def _style() -> Style:
    return Style(_definition())


@cache
def _definition() -> dict[str, Any]:
    return json.loads(files("dicebear_styles").joinpath("pixel-art.json").read_text("utf-8"))


def _shape(part: str, prefix: str | None, rng: np.random.Generator) -> dict[str, Any]:
    """Options for one of a part's shapes; without a prefix the part is left out."""
    if prefix is None:
        return {f"{part}Probability": 0}
    shapes = _definition()["components"][part]["variants"]
    names = [name for name in shapes if name.startswith(prefix)]
    return {f"{part}Probability": 100, f"{part}Variant": [str(rng.choice(names))]}


@cache
def _visible_hair(hair: str, hat: str | None) -> bool:
    """Whether enough of a hair is seen, under a hat or without one."""
    hidden = {f"{part}Probability": 0 for part in ("accessories", "glasses", "beard")}
    worn = {"hatProbability": 0} if hat is None else {"hatProbability": 100, "hatVariant": [hat]}
    seen = masks({"size": SIZE, "hairVariant": [hair], **hidden, **worn})["hair"]
    return int(seen.sum()) >= LEAST_HAIR


def _in_colors(colors: Mapping[str, Color]) -> dict[str, list[str]]:
    return {f"{part}Color": [bytes(color).hex()] for part, color in colors.items()}


if __name__ == "__main__":
    main()
