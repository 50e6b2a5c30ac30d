"""A classifier of drawn people, whose hidden layer compares sets of pictures:
`python -m examples.avatars.features avatars.npz`.

It is (1) of `examples.classifier` on all 32x32 pixels, with a logit for every word of every trait,
trained on what draw.py wrote. The file `classifier.npz` beside it has its numbers, and how often
each trait is read right in drawn people whose colors no training picture has together.

Needs: pip install scikit-learn
"""

import argparse
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import ddpm_jax as dj
from examples import classifier
from examples.avatars import draw
from examples.avatars.captions import held_out_people
from examples.avatars.people import TRAITS, to_numbers

if TYPE_CHECKING:
    from sklearn.neural_network import MLPClassifier

NAME = "classifier.npz"
HIDDEN, PICTURES, EPOCHS, TESTED = 128, 20_000, 20, 1000


def main(args: Sequence[str] | None = None) -> None:
    """Writes the file."""
    parser = argparse.ArgumentParser(description="Trains a classifier of drawn avatars.")
    parser.add_argument("data", type=Path, help="what draw.py wrote")
    parser.add_argument("--num", type=int, default=PICTURES, help=f"to learn from ({PICTURES})")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help=f"({EPOCHS})")
    given = parser.parse_args(args)
    if min(given.num, given.epochs) < 1:
        parser.error("--num and --epochs must be at least 1")
    if not given.data.is_file():
        parser.error(f"{given.data} is not there: run examples.avatars.draw")
    path = train(given.data, given.num, given.epochs)
    shares = ", ".join(f"{trait} {share:.1%}" for trait, share in accuracy_of(path).items())
    print(f"{path}: read right in {TESTED} drawn people: {shares}")


def train(data: Path, num: int = PICTURES, epochs: int = EPOCHS) -> Path:
    """Trains on the first `num` pictures, and writes the classifier's file beside them."""
    with np.load(data) as file:
        images, numbers = file["image"][:num], {name: file[name][:num] for name in TRAITS}
    network = fitted(images, numbers, epochs)
    rng = np.random.default_rng(11)
    people = held_out_people(rng, TESTED)
    drawn = draw.pictures(people, rng)
    shares = read_right(network, drawn, [to_numbers(person) for person in people])
    path = data.with_name(NAME)
    classifier.save(path, network, shares)
    return path


def fitted(images: np.ndarray, numbers: Mapping[str, np.ndarray], epochs: int) -> "MLPClassifier":
    """A network that takes pixels in [0, 1], whose hidden units have unit variance over `images`.

    It is trained on the difference of the pixels from their mean: on the pixels themselves, which
    have one sign, 100 of 128 hidden units became 0 for all pictures. A hidden unit times a number
    above 0, and its weights in the last layer divided by it, are the same classifier.
    """
    x = classifier.rows(images)
    mean = x.mean(0)
    network = classifier.fitted(x - mean, words(numbers), HIDDEN, epochs)
    kernels, biases = network.coefs_, network.intercepts_
    biases[0] = biases[0] - mean @ kernels[0]
    spread = np.maximum(x @ kernels[0] + biases[0], 0).std(0)
    spread[spread == 0] = 1
    kernels[0], biases[0] = kernels[0] / spread, biases[0] / spread
    kernels[1] = kernels[1] * spread[:, None]
    return network


def words(numbers: Mapping[str, np.ndarray]) -> np.ndarray:
    """(N, words) of 0 and 1: which words of all traits N people have."""
    columns = [np.eye(len(named), dtype=int)[numbers[name]] for name, named in TRAITS.items()]
    return np.concatenate(columns, 1)


def read_right(
    network: "MLPClassifier", images: np.ndarray, people: Iterable[Mapping[str, int]]
) -> list[float]:
    """The share of pictures in which the likeliest word of a trait is right, for each trait."""
    people = list(people)
    likely: Any = network.predict_proba(classifier.rows(images))
    ends = np.cumsum([len(named) for named in TRAITS.values()])
    return [
        float(np.mean(own.argmax(1) == [person[name] for person in people]))
        for name, own in zip(TRAITS, np.split(likely, ends[:-1], 1), strict=True)
    ]


def accuracy_of(path: Path) -> dict[str, float]:
    """How often the classifier in a file reads a trait right in drawn people."""
    return dict(zip(TRAITS, classifier.accuracy_of(path).tolist(), strict=True))


def features(path: Path) -> dj.FeatureNetwork:
    """The classifier in a file, as a network that pictures are compared by."""
    return classifier.features(path, "avatars", (draw.SIZE, draw.SIZE, 3), exclusive=False)


if __name__ == "__main__":
    main()
