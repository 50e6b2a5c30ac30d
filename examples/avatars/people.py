"""What an avatar can look like, in words: the traits that pictures and captions share.

A person is a dict with one word for each trait of `TRAITS`. Of the combinations of hair, skin and
clothing a tenth is held out: no training picture has one of them.
"""

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np

Person: TypeAlias = Mapping[str, str]
Color: TypeAlias = tuple[int, int, int]

COLORS: dict[str, Color] = {
    "black": (30, 30, 36),
    "brown": (112, 66, 32),
    "blond": (234, 200, 110),
    "red": (208, 40, 36),
    "orange": (242, 138, 36),
    "yellow": (248, 218, 40),
    "green": (48, 160, 70),
    "blue": (44, 96, 216),
    "purple": (124, 58, 180),
    "pink": (244, 128, 184),
    "grey": (142, 142, 148),
    "white": (250, 250, 250),
}
SKINS: dict[str, Color] = {
    "pale": (255, 228, 208),
    "light": (240, 192, 152),
    "tan": (208, 152, 96),
    "brown": (150, 96, 56),
    "dark": (88, 54, 34),
}
BACKGROUND: Color = (200, 224, 240)
"""Unlike every other color, so that white hair and white shirts are seen."""

NONE = "none"
TRAITS: dict[str, tuple[str, ...]] = {
    "hair": tuple(name for name in COLORS if name not in ("orange", "yellow")),
    "length": ("short", "long"),
    "skin": tuple(SKINS),
    "clothing": tuple(name for name in COLORS if name not in ("brown", "blond")),
    "glasses": (NONE, "glasses", "sunglasses"),
    "hat": (NONE, "red", "green", "blue", "black"),
    "beard": (NONE, "beard"),
    "mouth": ("smiling", "sad"),
}
SHARES = {"glasses": 0.4, "hat": 0.25, "beard": 0.2}
"""How many people have them; all else is equally frequent."""


def draw_person(rng: np.random.Generator) -> dict[str, str]:
    """A person at random."""
    person = {}
    for trait, words in TRAITS.items():
        given = words[0] != NONE or rng.random() < SHARES[trait]
        person[trait] = str(rng.choice([word for word in words if word != NONE])) if given else NONE
    return person


def is_held_out(person: Person) -> bool:
    """Whether training does not see these colors together. It sees each pair of them."""
    hair, skin, clothing = (
        TRAITS[trait].index(person[trait]) for trait in ("hair", "skin", "clothing")
    )
    return (hair + 2 * skin + clothing) % 10 == 0


def to_numbers(person: Person) -> dict[str, int]:
    """Each trait's place in `TRAITS`."""
    return {trait: words.index(person[trait]) for trait, words in TRAITS.items()}


def from_numbers(numbers: Mapping[str, int]) -> dict[str, str]:
    """The person that `to_numbers` made them of."""
    return {trait: words[numbers[trait]] for trait, words in TRAITS.items()}
