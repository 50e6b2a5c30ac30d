"""Captions in plain words: several phrasings of a person, some traits left out.

"a smiling person with long green hair and glasses, wearing a blue shirt", or a list: "blue shirt,
green hair, glasses, happy". Of what everyone has, such as hair, a caption says some; what only some
people have, such as a hat, is nearly always said, since a caption without it then means: none.

`python -m examples.avatars.captions --num 256` prints captions of people that may be trained on.
"""

import argparse
from collections.abc import Sequence

import numpy as np

from examples.avatars.people import NONE, Person, draw_person, is_held_out

SAID = {
    "hair": 0.85, "length": 0.35, "skin": 0.65, "clothing": 0.75, "mouth": 0.4,
    "glasses": 0.95, "hat": 0.95, "hat color": 0.85, "beard": 0.95,
}  # fmt: skip
"""How often a caption says a trait that a person has."""
ABSENT = 0.05
"""How often it says that something is absent: "no glasses"."""

NOUNS = ("person", "person", "face", "portrait", "avatar", "character")
MOODS = {"smiling": ("smiling", "happy"), "sad": ("sad", "frowning")}
CLOTHES = ("shirt", "shirt", "top", "t-shirt")
VERBS = ("wearing", "in")
SPELLINGS = {"grey": ("grey", "gray"), "blond": ("blond", "blonde")}


def caption(person: Person, rng: np.random.Generator) -> str:
    """One of the captions of a person."""
    said = {trait: bool(rng.random() < share) for trait, share in SAID.items()}
    mood = _one(rng, MOODS[person["mouth"]]) if said["mouth"] else ""
    clothes = f"{_spelled(rng, person['clothing'])} {_one(rng, CLOTHES)}"
    has = _has(person, said, rng)
    rng.shuffle(has)
    noun = _with_article(f"{mood} {_one(rng, NOUNS)}".strip())
    if rng.random() < 0.4:
        listed = [_bare(one) for one in has] + [clothes] * said["clothing"] + [mood] * bool(mood)
        rng.shuffle(listed)
        return ", ".join(listed) or noun
    has = f" with {_joined(has)}" if has else ""
    wears = f" {_one(rng, VERBS)} {_with_article(clothes)}" if said["clothing"] else ""
    return (noun + wears + has) if rng.random() < 0.5 else noun + has + wears


def full_caption(person: Person) -> str:
    """The caption that says all, always the same."""
    has = [f"{person['length']} {person['hair']} hair", f"{person['skin']} skin"]
    worn = ("a beard" if person["beard"] != NONE else "", _glasses(person), _hat(person))
    return (
        f"a {person['mouth']} person with {_joined(has + [one for one in worn if one])}, "
        f"wearing {_with_article(person['clothing'])} shirt"
    )


def held_out_people(rng: np.random.Generator, num: int) -> list[Person]:
    """People whose colors no training picture has together, each with another caption."""
    found: dict[str, Person] = {}
    while len(found) < num:
        person = draw_person(rng)
        if is_held_out(person):
            found.setdefault(full_caption(person), person)
    return list(found.values())


def _has(person: Person, said: dict[str, bool], rng: np.random.Generator) -> list[str]:
    """What stands after "with"."""
    has = []
    if said["hair"] or said["length"]:
        length = person["length"] if said["length"] else ""
        color = _spelled(rng, person["hair"]) if said["hair"] else ""
        has.append(" ".join(word for word in (length, color, "hair") if word))
    if said["skin"]:
        has.append(f"{person['skin']} skin")
    things = {
        "glasses": (_glasses(person), "no glasses"),
        "hat": (_hat(person) if said["hat color"] else "a hat", "no hat"),
        "beard": ("a beard", "no beard"),
    }
    for trait, (present, absent) in things.items():
        if person[trait] == NONE:
            has += [absent] * bool(rng.random() < ABSENT)
        else:
            has += [present] * said[trait]
    return has


def _glasses(person: Person) -> str:
    return "" if person["glasses"] == NONE else person["glasses"]


def _hat(person: Person) -> str:
    return "" if person["hat"] == NONE else f"a {person['hat']} hat"


def _with_article(phrase: str) -> str:
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def _bare(phrase: str) -> str:
    return phrase.removeprefix("a ")


def _joined(phrases: list[str]) -> str:
    *others, last = phrases
    return f"{', '.join(others)} and {last}" if others else last


def _spelled(rng: np.random.Generator, color: str) -> str:
    return _one(rng, SPELLINGS.get(color, (color,)))


def _one(rng: np.random.Generator, words: tuple[str, ...]) -> str:
    return words[rng.integers(len(words))]


def main(args: Sequence[str] | None = None) -> None:
    """Prints captions, one a line."""
    parser = argparse.ArgumentParser(description="Prints captions of random people.")
    parser.add_argument("--num", type=int, default=256, help="captions (256)")
    parser.add_argument("--seed", type=int, default=0, help="of the people (0)")
    given = parser.parse_args(args)
    rng, said = np.random.default_rng(given.seed), 0
    while said < given.num:
        person = draw_person(rng)
        if not is_held_out(person):
            print(caption(person, rng))
            said += 1


if __name__ == "__main__":
    main()
