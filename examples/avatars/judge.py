"""Has a picture what its caption asks for?

Colors are read where drawn pictures have them. With w_i the share of drawn people, of a hair length
and with or without a hat, whose pixel i belongs to a part, and c the part's named colors, the color
of a picture x is

    (1)  argmax_c  sum of w_i over the pixels i whose nearest color is c,   w_i >= half the largest

among the part's colors and those of what may lie there instead: the background, and skin around
hair. Glasses and hats are read by small networks that learned drawn pictures.

Needs: pip install scikit-learn
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.neural_network import MLPClassifier

from examples.avatars import draw
from examples.avatars.people import BACKGROUND, COLORS, NONE, SKINS, TRAITS, Color, Person

PARTS = ("hair", "skin", "clothing")
WORN = ("glasses", "hat")
BEHIND: dict[str, Mapping[str, Color]] = {"hair": SKINS, "skin": {}, "clothing": SKINS}
"""What else may be seen where a part is expected."""


class Judge:
    """Reads the traits of pictures.

    Args:
        people: drawn at random, to learn from.
        rng: of their shapes.
    """

    def __init__(self, people: Sequence[Person], rng: np.random.Generator):
        options = [draw.options(person, rng) for person in people]
        masks = [draw.masks(one) for one in options]
        groups = np.array([_group(person) for person in people])
        self._shares = {
            (part, group): np.mean(
                [mask[part] for mask, own in zip(masks, groups, strict=True) if own == group], 0
            )
            for part in PARTS
            for group in set(groups.tolist())
        }
        features = _features(np.stack([draw.picture(one) for one in options]))
        self._worn = {
            trait: MLPClassifier((64,), random_state=0, max_iter=60, early_stopping=True).fit(
                features, [person[trait] for person in people]
            )
            for trait in WORN
        }

    def read(self, images: np.ndarray, people: Sequence[Person]) -> dict[str, list[str]]:
        """What is seen, by trait, in pictures of captions of these people."""
        features = _features(images)
        colors = {
            part: [
                self._color(image, part, person)
                for image, person in zip(images, people, strict=True)
            ]
            for part in PARTS
        }
        return colors | {
            trait: [str(word) for word in net.predict(features)]
            for trait, net in self._worn.items()
        }

    def _color(self, image: np.ndarray, part: str, person: Person) -> str:
        """Equation (1)."""
        shares = self._shares[part, _group(person)]
        named = SKINS if part == "skin" else COLORS
        own = {name: named[name] for name in TRAITS[part]}
        others = [BACKGROUND, *BEHIND[part].values()]
        where = shares >= shares.max() / 2
        colors = np.array([*own.values(), *others], float)
        far = np.square(image[where][:, None].astype(float) - colors[None]).sum(-1)
        votes = np.bincount(far.argmin(1), shares[where], len(colors))
        return tuple(own)[int(votes[: len(own)].argmax())]


def agreement(read: Mapping[str, Sequence[str]], people: Sequence[Person]) -> dict[str, float]:
    """The share of pictures in which a trait is seen as it was asked for; "hat, if any" is that of
    the people with a hat."""
    shares: dict[str, float] = {}
    for trait, seen in read.items():
        right = np.array([one == person[trait] for one, person in zip(seen, people, strict=True)])
        shares[trait] = float(right.mean())
        if trait in WORN:
            worn = np.array([person[trait] != NONE for person in people])
            shares[f"{trait}, if any"] = float(right[worn].mean())
    return shares


def _group(person: Person) -> str:
    return f"{person['length']} {'hat' if person['hat'] != NONE else ''}"


def _features(images: np.ndarray) -> Any:
    """One of four pixels, as they are equal in drawn pictures."""
    return images[:, ::2, ::2].reshape(len(images), -1) / 127.5 - 1
